"""The paper: its protocol, its tables and figures, and what is printed in it."""
