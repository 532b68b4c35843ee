"""What people read of a run: tables, Markdown, a web page, figures."""
