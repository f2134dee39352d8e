"""The pages for people: server-rendered, with a little JavaScript of our own."""
