"""The guest's side: the server that launches applications, watches them and tells how they ended."""
