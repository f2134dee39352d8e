"""What moderators do: claim, decide, undo; second looks, appeals, look-alikes and lists."""
