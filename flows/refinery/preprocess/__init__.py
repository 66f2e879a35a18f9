"""The contract's steps on the good rows, and the files that come out."""
