"""English for identifiers: how people speak of tables and columns, and how they ask.

Phrases are small grammars in one string: `[a|b]` is a choice (choices nest), `{name}` is a slot. See `say`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

_IRREGULAR = {
    "people": "person", "children": "child", "men": "man", "women": "woman", "mice": "mouse", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "oxen": "ox", "leaves": "leaf", "shelves": "shelf", "lives": "life",
    "analyses": "analysis", "diagnoses": "diagnosis", "crises": "crisis", "criteria": "criterion", "aliases": "alias",
    "staff": "staff", "series": "series", "species": "species", "equipment": "equipment", "news": "news",
    "movies": "movie", "cookies": "cookie", "inventory": "inventory", "buses": "bus", "statuses": "status",
}  # fmt: skip
_IRREGULAR_PLURAL = {one: many for many, one in _IRREGULAR.items()}


def singular(word: str) -> str:
    """`cities` -> `city`. Only the last word of a phrase changes."""
    head, _, last = word.rpartition(" ")
    lead = f"{head} " if head else ""
    if last in _IRREGULAR:
        return lead + _IRREGULAR[last]
    if last.endswith("ies") and len(last) > 4:
        return lead + last[:-3] + "y"
    if last.endswith(("sses", "shes", "ches", "xes", "zes")):
        return lead + last[:-2]
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return lead + last[:-1]
    return word


def plural(word: str) -> str:
    """`city` -> `cities`. A word that is plural already stays."""
    head, _, last = word.rpartition(" ")
    lead = f"{head} " if head else ""
    if last in _IRREGULAR:
        return word
    if last in _IRREGULAR_PLURAL:
        return lead + _IRREGULAR_PLURAL[last]
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return lead + last[:-1] + "ies"
    if last.endswith(("ss", "sh", "ch", "x", "z")) or (last.endswith("us") and len(last) > 4):
        return lead + last + "es"
    return word if last.endswith("s") else word + "s"


_EXPANSIONS = {
    "qty": "quantity", "amt": "amount", "desc": "description", "num": "number", "nr": "number", "no": "number",
    "cust": "customer", "emp": "employee", "dept": "department", "addr": "address", "tel": "phone", "dob": "birth date",
    "prod": "product", "cat": "category", "avg": "average", "max": "maximum", "min": "minimum", "pct": "percentage",
    "yr": "year", "acct": "account", "inv": "invoice", "org": "organisation", "loc": "location", "mgr": "manager",
}  # fmt: skip


def human(identifier: str) -> str:
    """An identifier as words: `unit_price` -> `unit price`, `custId` -> `customer id`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", identifier).replace("_", " ").replace("-", " ").lower()
    return " ".join(_EXPANSIONS.get(word, word) for word in spaced.split())


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "owner": ("client", "customer"), "customer": ("client", "buyer", "shopper"), "employee": ("staff member", "worker", "colleague"),
    "product": ("item", "article"), "order": ("purchase",), "purchase": ("order",), "client": ("customer",),
    "supplier": ("vendor", "provider"), "vendor": ("supplier",), "store": ("shop", "branch"), "shop": ("store",),
    "movie": ("film",), "film": ("movie",), "doctor": ("physician",), "patient": ("case",), "car": ("vehicle",),
    "vehicle": ("car",), "student": ("pupil",), "teacher": ("instructor",), "instructor": ("teacher", "trainer"),
    "course": ("class",), "appointment": ("visit", "booking"), "booking": ("reservation",),
    "reservation": ("booking",), "invoice": ("bill",), "bill": ("invoice",), "review": ("rating", "feedback"),
    "shipment": ("delivery",), "delivery": ("shipment",), "member": ("subscriber",), "user": ("account",),
    "station": ("stop", "location"), "ticket": ("case", "issue"), "flight": ("trip",), "trip": ("ride", "journey"),
    "rental": ("hire", "booking"), "payment": ("transaction",), "category": ("type", "kind"), "type": ("kind",),
    "price": ("cost",), "cost": ("price",), "salary": ("pay", "wage"), "city": ("town",), "country": ("nation",),
    "name": (), "title": ("name",), "quantity": ("amount", "number of units"), "amount": ("sum", "value"),
    "total": ("total amount",), "email": ("email address", "mail address"), "phone": ("phone number",),
    "address": ("location",), "status": ("state",), "description": ("details",), "capacity": ("size",),
    "weight": (), "rating": ("score",), "score": ("rating",), "duration": ("length",), "color": ("colour",),
    "stock": ("stock level", "inventory"), "birth date": ("date of birth", "birthday"), "job": ("position", "role"),
    "position": ("role", "job"), "role": ("position",), "department": ("team", "division"), "zip": ("postcode",),
    "fee": ("charge",), "discount": ("reduction",), "repair": ("fix",), "warehouse": ("depot",), "depot": ("base",),
}  # fmt: skip


def maybe_synonym(phrase: str, rng: random.Random, chance: float) -> str:
    """The phrase, or with the given chance one in which the last word is swapped for a synonym, number kept."""
    if rng.random() >= chance:
        return phrase
    head, _, last = phrase.rpartition(" ")
    one = singular(last)
    others = SYNONYMS.get(phrase) or SYNONYMS.get(one)
    if not others:
        return phrase
    other = rng.choice(others)
    if one != last:
        other = plural(other)
    return f"{head} {other}" if head and phrase not in SYNONYMS else other


SUPERLATIVES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"price", "cost", "fee", "rate", "fare", "rent"}), "most expensive|priciest", "cheapest|least expensive"),
    (frozenset({"salary", "wage", "pay"}), "highest paid|best paid", "lowest paid|worst paid"),
    (frozenset({"rating", "score", "stars", "grade", "mark"}), "best rated|highest rated|top rated", "worst rated|lowest rated"),
    (frozenset({"capacity", "size", "area", "population", "surface", "seats", "beds"}), "largest|biggest", "smallest"),
    (frozenset({"weight", "kg", "kilos", "load"}), "heaviest", "lightest"),
    (frozenset({"distance", "length", "duration", "minutes", "hours", "km", "kilometers", "days"}), "longest", "shortest"),
    (frozenset({"age"}), "oldest", "youngest"),
    (frozenset({"height", "elevation", "altitude"}), "tallest|highest", "shortest|lowest"),
    (frozenset({"speed"}), "fastest", "slowest"),
)  # fmt: skip
"""(words in a column's name, what the row with the highest value is called, and the one with the lowest)."""

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
PERSON_WORDS = frozenset(
    [
        "customer",
        "client",
        "employee",
        "person",
        "student",
        "teacher",
        "doctor",
        "nurse",
        "patient",
        "author",
        "actor",
        "player",
        "member",
        "user",
        "driver",
        "pilot",
        "instructor",
        "manager",
        "technician",
        "mechanic",
        "passenger",
        "guest",
        "tenant",
        "owner",
        "artist",
        "singer",
        "director",
        "coach",
        "agent",
        "seller",
        "buyer",
        "worker",
        "engineer",
        "scientist",
        "volunteer",
        "rider",
        "trainer",
        "staff",
        "supervisor",
        "chef",
        "farmer",
        "citizen",
        "reader",
        "borrower",
        "visitor",
        "officer",
        "judge",
        "lawyer",
        "dentist",
        "vet",
        "therapist",
        "student",
    ]
)
MONEY_WORDS = frozenset(
    """price cost amount total fee charge charged revenue paid payment spend spent sales salary wage rent fare bill
    invoiced billed earnings income budget expense value deposit balance tip discount refund""".split()
)
DURATIONS = {"minutes": "minutes", "hours": "hours", "days": "days", "weeks": "weeks", "months": "months",
             "duration": "", "seconds": "seconds"}  # fmt: skip
"""Words in a column's name that make it a span of time, and the unit they name."""
SITE_WORDS = frozenset(
    """clinic shop store branch site hospital school office warehouse depot restaurant hotel library station centre
    center garage farm factory plant gym museum theatre venue campus airport port salon studio workshop bank cafe""".split()
)
"""Where people work and things happen, as against what is only a place name."""
REMARK_WORDS = frozenset(
    "comment comments note notes description remark remarks text body message feedback summary".split()
)
PLACE_WORDS = frozenset(
    [
        "city",
        "country",
        "town",
        "region",
        "state",
        "district",
        "location",
        "county",
        "province",
        "place",
        "village",
        "area",
    ]
)
_VERBS_IRREGULAR = frozenset(
    [
        "sold",
        "paid",
        "built",
        "born",
        "sent",
        "made",
        "left",
        "bought",
        "taken",
        "begun",
        "won",
        "lost",
        "held",
        "written",
        "sworn",
    ]
)


DATE_NOUNS: Mapping[str, str] = {
    "hired": "hire", "shipped": "shipping", "joined": "join", "started": "start", "ended": "end", "ordered": "order",
    "created": "creation", "opened": "opening", "closed": "closing", "delivered": "delivery", "returned": "return",
    "registered": "registration", "published": "publication", "released": "release", "booked": "booking",
    "purchased": "purchase", "paid": "payment", "updated": "update", "issued": "issue", "born": "birth",
    "completed": "completion", "received": "receipt", "founded": "founding", "repaired": "repair", "signed": "signing",
}  # fmt: skip
"""What a date is called: the `hired_on` of an employee is the hire date."""


def verb_of_date(identifier: str) -> str | None:
    """`hired_on`, `created_at`, `shipped_date` -> `hired`, `created`, `shipped`; None where no verb is in the name."""
    words = [w for w in human(identifier).split() if w not in {"at", "on", "date", "time", "timestamp", "day"}]
    if len(words) == 1 and (words[0].endswith("ed") or words[0] in _VERBS_IRREGULAR):
        return words[0]
    nouns = {
        "order": "ordered", "hire": "hired", "birth": "born", "purchase": "purchased", "creation": "created",
        "release": "released", "signup": "signed up", "registration": "registered", "enrollment": "enrolled",
        "booking": "booked", "sale": "sold", "payment": "paid", "publication": "published", "join": "joined",
        "start": "started", "opening": "opened", "delivery": "delivered", "shipping": "shipped", "issue": "issued",
        "visit": "visited", "return": "returned", "rental": "rented", "founding": "founded", "submission": "submitted",
    }  # fmt: skip
    return nouns.get(words[0]) if len(words) == 1 else None


_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def say(template: str, rng: random.Random, **slots: str) -> str:
    """One sentence of the grammar. Slots are filled last and verbatim, so values may hold any character."""
    while (match := _INNERMOST.search(template)) is not None:
        choice = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + choice + template[match.end() :]
    pieces = _SLOT.split(" ".join(template.split()))
    text = "".join(slots[piece] if i % 2 else piece for i, piece in enumerate(pieces))
    return text.replace(" ,", ",").replace(" ?", "?").strip()


def sentence(text: str) -> str:
    """First letter upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


_OPENERS = (
    "hi, ", "hey, ", "quick question: ", "please tell me ", "can you tell me ", "could you check ", "I need to know ",
    "do you know ", "for the report: ", "just curious, ", "one more: ", "tell me ", "i'd like to know ", "can you check ",
    "could you tell me ", "remind me, ", "ok so ", "any idea ", "by the way, ", "for tomorrow: ", "morning! ",
)  # fmt: skip
_FILLERS = (
    " please",
    " right now",
    " overall",
    " in total",
    " by any chance",
    " in our data",
    " at the moment",
    " so far",
)


def roughen(question: str, rng: random.Random) -> str:
    """A colleague's carelessness on top of a well-formed question; never touches a quoted or capitalised value."""
    text = question
    ends = text.endswith("?")
    body = text[:-1] if text.endswith(("?", ".")) else text
    roll = rng.random()
    if roll < 0.25:
        opener = rng.choice(_OPENERS)
        body = opener + body[:1].lower() + body[1:]
    elif roll < 0.4:
        body += rng.choice(_FILLERS)
    if rng.random() < 0.4:
        body = body[:1].lower() + body[1:]
    if rng.random() < 0.12:
        body = _typo(body, rng)
    for long, short in (("what is ", "what's "), ("who is ", "who's "), ("do not ", "don't "), ("What is ", "What's ")):
        if long in body and rng.random() < 0.5:
            body = body.replace(long, short, 1)
    return body + ("?" if ends and rng.random() < 0.6 else "")


def _typo(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    plain = [i for i, word in enumerate(words) if len(word) > 5 and word.isalpha() and word.islower()]
    if not plain:
        return text
    i = rng.choice(plain)
    at = rng.randrange(1, len(words[i]) - 2)
    word = words[i]
    words[i] = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :] if rng.random() < 0.5 else word[:at] + word[at + 1 :]
    )
    return " ".join(words)
