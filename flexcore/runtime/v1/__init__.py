"""Generated from proto/flexcore/runtime/v1 by .ci/generate; never edited."""
