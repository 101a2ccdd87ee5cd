"""Long work with progress: one row a job, run by the bulk worker, paused, resumed, cancelled, retried by anyone allowed."""
