"""The console: server-rendered pages for people, with a little JavaScript of our own."""
