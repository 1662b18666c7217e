"""What is printed, and Ctrl-C: shared by the command line and the chat."""
