"""What is drawn and formatted for people, wherever they read it."""
