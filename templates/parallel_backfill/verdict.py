"""Add up what was loaded; fail with the list of days that were not."""


def main(days, results):
    failed = [(day, each["error"]["message"]) for day, each in zip(days, results, strict=True) if "error" in each]
    loaded = [each for each in results if "error" not in each]
    print(f"{len(loaded)} of {len(days)} days loaded")
    if failed:
        reasons = "; ".join(f"{day}: {message}" for day, message in failed)
        raise RuntimeError(
            f"{len(failed)} of {len(days)} days failed ({reasons}); `flexcore workflow retry` runs only these"
        )
    return {
        "days": len(loaded),
        "rows": sum(each["rows"] for each in loaded),
        "visits": sum(each["visits"] for each in loaded),
    }
