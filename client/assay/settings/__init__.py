"""Settings: one table, four places (flag > environment > file > default)."""

from assay.settings.table import SETTINGS, Setting, Settings, SettingsError, default_file, load_settings

__all__ = ["SETTINGS", "Setting", "Settings", "SettingsError", "default_file", "load_settings"]
