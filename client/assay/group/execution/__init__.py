"""A group that trains one market task: its lowered program partitioned over members, executed to the same bits."""
