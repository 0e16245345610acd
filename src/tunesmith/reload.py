"""What a run exported, met as its user will meet it: a new process, the folder, a question, an answer, a grade.

Started by `tunesmith prove`: `python -c "from tunesmith.reload import main; main()" RUN OUT.json`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from tunesmith import pipeline
from tunesmith.bench import reopen
from tunesmith.errors import TunesmithError
from tunesmith.types import Example


def main() -> None:
    """Command line of the process."""
    run, out = (Path(argument) for argument in sys.argv[1:3])
    logging.getLogger("tunesmith").setLevel(logging.WARNING)
    try:
        found = reload_exports(run)
    except TunesmithError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def reload_exports(root: Path) -> dict[str, Any]:
    """Every export of a run, loaded from disk, held against the trained model and graded.

    Returns:
        `exports`: format to what agreed (see `export.verify.Verified`), answers and grades.

    Raises:
        CheckFailed: an export is not the trained model.
        ModelError: it cannot be loaded.
    """
    from tunesmith.config.schema import AdapterExport
    from tunesmith.export.artifact import describe
    from tunesmith.export.verify import verify
    from tunesmith.model.load import load_model
    from tunesmith.train.fit import load_trained

    found: dict[str, Any] = {}
    with reopen(root) as bench:
        prepared, tokenizer, renderer = pipeline.prepare(bench)
        config = bench.config
        asked = pipeline.probes(prepared, 4)
        base = load_model(config.model, precision=config.train.precision)
        model = load_trained(config, bench.run, base)
        for path in sorted(bench.run.exports.iterdir() if bench.run.exports.is_dir() else []):
            known = {export.format for export in config.exports}
            form = next((name for name in known if path.name == name or path.name.startswith(f"{name}-")), None)
            if form is None:
                continue
            start = time.perf_counter()
            prompts = [renderer.prompt_ids(example.prompt) for example in asked]
            verified = verify(describe(form, path), model, tokenizer, prompts, config)
            found[path.name] = {"verified": verified.figures(), "sentence": verified.sentence()}
            if form in ("merged", "adapter") and (form == "merged" or AdapterExport in map(type, config.exports)):
                found[path.name] |= _answers(bench, path, form, asked)
            found[path.name]["seconds"] = round(time.perf_counter() - start, 2)
    return {"exports": found}


def _answers(bench: Any, path: Path, form: str, asked: list[Example]) -> dict[str, Any]:
    """What the export answers with its own tokenizer and settings, and what the task says of it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tunesmith.data.render import Renderer
    from tunesmith.evaluate import evaluate
    from tunesmith.generate.lexicon import Lexicon
    from tunesmith.model.load import load_model
    from tunesmith.model.lora import with_peft

    config = bench.config
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    if form == "adapter":
        from peft import PeftModel

        base = load_model(config.model, precision=config.train.precision)
        model = with_peft(lambda: PeftModel.from_pretrained(base, str(path))).eval()
    else:
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype="auto", use_safetensors=True).eval()
    renderer = Renderer(tokenizer, config.model.end_token)
    lexicon = Lexicon.load(bench.run.lexicon) if bench.run.lexicon.exists() else None
    result = evaluate(model, tokenizer, renderer.prompt_ids, asked, bench.task, config, lexicon=lexicon)
    return {
        "answers": [one.completion.text for one in result.judged],
        "scores": [one.score.value for one in result.judged],
        "stopped": sum(one.completion.stopped for one in result.judged),
    }
