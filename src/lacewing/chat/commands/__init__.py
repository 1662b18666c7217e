"""The commands, one small file for each group. `command.load_commands` imports them all."""
