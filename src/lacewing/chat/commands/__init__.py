"""The commands, one small file for each group. `table.load_commands` imports them all."""
