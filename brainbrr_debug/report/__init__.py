"""One verdict, many views: text, HTML, JSON."""
