"""Tables, figures, players and the report page, from the files that stages wrote."""
