"""Look at a data set before it is built: what is there, what each gap means, what is wrong."""
