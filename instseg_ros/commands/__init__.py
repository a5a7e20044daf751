"""The subcommands of `instseg`, one module each."""
