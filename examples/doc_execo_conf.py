"""What a ``~/.execo.conf.py`` can look like. Nothing is shown when it is run."""

configuration = {
    "log_level": "DETAIL",
    "kill_timeout": 10,
    "max_output": 10 * 1024 * 1024,
    "color_styles": {"emph": ("cyan", "bold")},
}
default_connection_params = {"user": "root", "connect_timeout": 5}
