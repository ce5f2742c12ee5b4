"""What can be learned: text context, deep text, visual tokens, pixel frame, couplings."""
