"""What every command does with a terminal, a machine and its folders."""
