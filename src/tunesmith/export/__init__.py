"""What a run hands to the world: one file per format, each artifact loaded back and compared before it counts."""

from __future__ import annotations

from tunesmith.config.schema import AdapterExport, MergedExport, RunConfig
from tunesmith.export.adapter import export_adapter
from tunesmith.export.artifact import Artifact
from tunesmith.export.merged import export_merged
from tunesmith.rundir import RunDir

__all__ = ["Artifact", "export", "export_adapter", "export_merged"]


def export(config: RunConfig, run: RunDir, export_config: AdapterExport | MergedExport) -> Artifact:
    """Write one export of a trained run under `exports/`, whole or not at all.

    Raises:
        ModelError: the run has no trained weights, or base and adapter do not fit together.
        ConfigError: the format does not suit the run.
    """
    if isinstance(export_config, AdapterExport):
        return export_adapter(config, run, export_config)
    return export_merged(config, run, export_config)
