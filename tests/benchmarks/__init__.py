"""Our paths and the field's usual ones, timed side by side on the same weights and samples."""
