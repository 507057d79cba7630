"""MLflow: model versions, promotions, experiments."""
