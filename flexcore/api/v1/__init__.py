"""Generated from proto/flexcore/api/v1 by .ci/generate; never edited."""
