"""Settings: defaults < ripieno.toml < RIPIENO_* variables < flags; unknown keys are errors.

Relative paths in the file are resolved against the file's folder, so the home lies beside the file. Relative paths in
variables and flags are resolved against the current folder.
"""

from ripieno.config.loading import FILE, Loaded, load_settings
from ripieno.config.settings import GatewaySettings, ProviderSettings, Settings, WorkerSettings

__all__ = ["FILE", "GatewaySettings", "Loaded", "ProviderSettings", "Settings", "WorkerSettings", "load_settings"]
