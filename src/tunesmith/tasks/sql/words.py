"""The words and tokens of PostgreSQL, as far as a reader of unfinished queries needs them."""

from __future__ import annotations

import re

TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<open_string>'(?:[^']|'')*\Z) | (?P<string>'(?:[^']|'')*')
    | (?P<open_quoted>"(?:[^"]|"")*\Z) | (?P<quoted>"(?:[^"]|"")*")
    | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)) | (?P<word>[^\W\d][\w$]*)
    | (?P<sign>::|<>|!=|<=|>=|\|\||->>|->|~\*|!~|--|/\*|[-+*/%<>=(),.;\[\]^~|&\#:@?{}!])
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


JOINS = _words("join inner left right full outer cross natural")
LEADS = _words("inner left right full cross natural")
"""What may stand before JOIN."""
SET_OPERATIONS = _words("union intersect except")
CLAUSES = {
    "from": 1, "where": 2, "group": 3, "having": 4, "window": 5, "order": 6, "limit": 7, "offset": 7, "fetch": 7,
    "for": 8,
}  # fmt: skip
"""Words that begin a part of a query, and the order the parts come in."""
BY = _words("group order partition")
"""Words before BY."""
COMPARISONS = _words("= <> != < > <= >=")

VALUES = _words(
    "null true false unknown current_date current_time current_timestamp localtime localtimestamp current_user"
)
"""Words that are a value."""
ENDS = VALUES | _words("end asc desc first last only ties row rows preceding following")
"""Words after which an expression, or a query, may end."""
TYPES = _words(
    """bigint bool boolean bpchar bytea char character date decimal double float float4 float8 int int2 int4 int8
    integer interval json jsonb money name numeric precision real regclass regtype serial smallint text time
    timestamp timestamptz timetz uuid varchar varying xml with without zone"""
)
TYPED = _words("date time timestamp interval timestamptz")
"""Types that may stand before a text to type it: DATE '2024-01-01'."""
FIELDS = _words(
    """century day decade dow doy epoch hour isodow isoyear julian microseconds millennium milliseconds minute
    month quarter second timezone week year years months days hours minutes seconds weeks"""
)
AFTER_OPERAND = _words(
    "and or like ilike in is isnull notnull between not at collate over filter within similar escape"
)
BEFORE_OPERAND = (VALUES - {"unknown"}) | _words("not case array exists any all some")
PAIRS = {
    "is": _words("not null true false distinct unknown"),
    "infix": _words("in like ilike between similar"),
    "similar": _words("to"),
    "at": _words("time"),
    "time": _words("zone"),
    "nulls": _words("first last"),
    "asc": _words("nulls"),
    "desc": _words("nulls"),
    "first": _words(""),
    "last": _words(""),
}
"""Words that only certain words may follow; `infix` is a NOT after an operand."""
CASE = _words("when then else end")
WINDOW = _words("asc desc nulls order partition range groups rows")
"""Words that part a window, or an aggregate's arguments, after an operand."""
FRAME = _words("between and unbounded preceding following current row exclude")
"""Words that say which rows a window holds."""
ROWS = _words("first next row rows only all with ties")
"""Words that may stand with LIMIT, OFFSET and FETCH."""
FUNCTIONS = _words(
    """abs acos acosh age any_value array_agg array_append array_length array_position array_remove array_to_string
    arrayoverlap ascii asin asind atan atan2 avg bit_and bit_count bit_length bit_or bool_and bool_or btrim
    cardinality cast cbrt ceil ceiling char_length character_length chr clock_timestamp coalesce concat
    concat_ws corr cos cosd cot count covar_pop covar_samp cube cume_dist date date_bin date_part date_trunc
    decode degrees dense_rank div encode every exp extract factorial first_value float floor format gcd
    generate_series greatest grouping initcap int isfinite justify_days justify_hours justify_interval lag
    last_value lcm lead least left length ln log log10 lower lpad ltrim make_date make_interval make_time
    make_timestamp make_timestamptz max md5 min mod mode now nth_value ntile nullif numeric octet_length overlay
    percent_rank percentile_cont percentile_disc pi position power radians random rank regexp_count regexp_instr
    regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope repeat replace reverse right
    rollup round row_number rpad rtrim scale sets sign sin sind split_part sqrt starts_with statement_timestamp
    stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strpos substr substring sum tan
    tand text timezone to_char to_date to_hex to_number to_timestamp translate trim trim_array trunc unnest
    upper uuid var_pop var_samp variance width_bucket"""
)
JSON_FUNCTIONS = _words(
    """array_to_json json_agg json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path_text json_object_agg jsonb_agg
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_each_text jsonb_extract_path_text jsonb_object_agg jsonb_object_keys row_to_json to_json
    to_jsonb"""
)
"""Allowed where the schema speaks of JSON."""
AGGREGATES = _words(
    """any_value array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop covar_samp every max min mode
    percentile_cont percentile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope stddev stddev_pop
    stddev_samp string_agg sum var_pop var_samp variance"""
)
"""Not in WHERE, ON or GROUP BY."""
WINDOWS = _words("cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number")
"""Only in a SELECT list or ORDER BY."""
NO_ARGUMENTS = _words(
    "now random pi row_number rank dense_rank percent_rank cume_dist clock_timestamp statement_timestamp"
)
