"""The gallery's life: installed models, generations, the ledger of embeddings, thresholds. PostgreSQL is the truth."""
