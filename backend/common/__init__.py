"""What every app stands on: errors as problem+json, pages, health, metrics, the broker's client."""
