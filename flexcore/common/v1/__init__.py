"""Generated from proto/flexcore/common/v1 by .ci/generate; never edited."""
