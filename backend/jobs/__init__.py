"""Long work with progress: one row a job, run by the bulk worker, steered by whoever may."""
