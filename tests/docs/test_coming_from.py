"""The table of names is true: what it names is there, and what is there is not called planned."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tunesmith.config.shape import known_keys

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coming-from.md"

NAMES = """
training/data_loader.py load_training_data format_instruction_example tokenize_function create_data_collator SQLDataset
training/model_utils.py load_model_and_tokenizer setup_quantization_config setup_lora_config apply_lora_to_model
print_trainable_parameters training/train.py main parse_args load_config setup_logging setup_training_args
create_trainer train_model evaluate_model save_final_model training/callbacks.py GCSCheckpointCallback
TrainingProgressCallback EarlyStoppingCallback training/metrics.py compute_metrics evaluate_sql_generation
training/validation.py validate_training_pipeline test_data_loading test_model_initialization test_training_step
test_checkpoint_saving test_checkpoint_loading test_inference generate_validation_report training/smoke_test.py
run_smoke_test test_full_workflow training/environment_setup training/evaluate training/gcs_utils
download_data_from_gcs training/test_config.yaml training/configs/mistral_lora_config.yaml scripts/run_training.sh
run_validation.sh setup_training_env.sh gcp/create_training_instance.sh gcp/sync_data_to_gcp.sh
gcp/connect_to_instance.sh gcp/stop_instance.sh notebooks/train_colab_gcs.ipynb test_training_setup.ipynb
validation_notebook.ipynb cli/train_gemma.py config/config_manager.py ConfigManager TrainerFactory DatasetFactory
ModelFactory TrainingManager CheckpointManager EvaluationManager ExperimentManager inference_engine.py
comet_tracker.py chat_formatter.py device_utils.py exceptions.py logging.py DatasetGenerator FileHandler BaseTrainer
CustomTrainer CustomEvaluator configs/production.yaml configs/quick_test.yaml LOG_LEVEL TRAINING_DEBUG MODEL_ID
MAX_INPUT_TOKENS MAX_TOTAL_TOKENS LEARNING_RATE BATCH_SIZE GRADIENT_ACCUMULATION_STEPS MAX_STEPS WARMUP_STEPS COMET_*
HF_TOKEN ConfigLoader ModelLoader load_and_configure show_memory_stats print_memory_stats DatasetLoader
prepare_dataset formatting_prompts_func SFTTrainerWrapper setup_and_train enable_response_only_training train
save_model TrainingMonitor scripts/train_sft.py --config --override --show-config --no-save configs/sft.yaml
""".split()


class Line(NamedTuple):
    names: tuple[str, ...]
    planned: bool
    targets: tuple[str, ...]


def lines() -> list[Line]:
    found = []
    for text in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if text.startswith("|") and "`" in text:
            assert len(cells) == 3, text
            ticked = [tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells]
            found.append(Line(ticked[0], cells[1].startswith("planned: "), ticked[1]))
    return found


def exists(target: str) -> bool:
    """Whether a path, a verb, a setting, or a dotted name of the package is there, without importing it."""
    if target.startswith("tunesmith "):
        verb = target.removeprefix("tunesmith ").replace(" ", "_")
        return any(defines(file, verb) for file in (ROOT / "src" / "tunesmith" / "cli").glob("*.py"))
    if "/" in target or target == "Makefile":
        return (ROOT / target).is_file()
    if not target.startswith("tunesmith."):
        return any(target == key for key, _, _ in known_keys())
    path, *rest = ROOT / "src" / "tunesmith", *target.split(".")[1:]
    while rest and (path / rest[0]).is_dir():
        path /= rest.pop(0)
    if rest and (path / f"{rest[0]}.py").is_file():
        path = path / f"{rest.pop(0)}.py"
    elif path.is_dir():
        path /= "__init__.py"
    return path.is_file() and (not rest or (len(rest) == 1 and defines(path, rest[0])))


def defines(path: Path, name: str) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in ast.parse(path.read_text()).body)


def test_the_check_itself_can_tell() -> None:
    assert importlib.util.find_spec("tunesmith") is not None
    assert all(map(exists, ["tunesmith.errors", "tunesmith.config.load.load_config", "tunesmith show", "train.loss"]))
    assert not any(
        map(
            exists, ["tunesmith.nothing", "tunesmith.config.load.nothing", "tunesmith fly", "train.nothing", "a/b.yaml"]
        )
    )


def test_every_name_of_the_documents_is_in_the_table() -> None:
    named = {name for line in lines() for name in line.names}
    assert sorted(set(NAMES) - named) == []


@pytest.mark.parametrize("line", lines(), ids=lambda line: ",".join(line.names))
def test_what_the_table_names_is_there_and_what_it_plans_is_not(line: Line) -> None:
    assert line.targets
    there = {target: exists(target) for target in line.targets}
    if line.planned:
        assert not all(there.values()), f"{line.targets} exists now: remove the word planned in docs/coming-from.md"
    else:
        assert all(there.values()), f"not there: {[target for target, found in there.items() if not found]}"
