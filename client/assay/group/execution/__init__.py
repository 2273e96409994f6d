"""A group that trains one market task: a program or a recorded graph divided among members, exactly or natively."""
