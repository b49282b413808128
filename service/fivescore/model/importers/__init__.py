"""Published reward models of every layout, read and written as folders that can be served."""
