"""The commands, by what they are for; their work is in modules beside this folder."""
