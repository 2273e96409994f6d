"""What crosses a slow link, and in how many bits."""
