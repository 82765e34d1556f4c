"""aesearch as scikit-learn estimators: ``Autoencoder`` and ``AutoencoderSearchCV``."""

from aesearch.sklearn.autoencoder import Autoencoder
from aesearch.sklearn.search_cv import AutoencoderSearchCV

__all__ = ["Autoencoder", "AutoencoderSearchCV"]
