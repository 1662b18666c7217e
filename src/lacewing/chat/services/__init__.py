"""What is done to a session: its model, template, memory and files. Commands call these."""
