"""What makes the executable: its entry, what goes into it, whose licences that needs, and its list of parts."""
