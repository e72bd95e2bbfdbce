"""Where stages run: under Ray or in this process."""
