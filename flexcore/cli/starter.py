"""The workflow that `flexcore workflow create` writes: small, commented, and it runs as it is."""


def starter(name: str) -> str:
    """Write a first workflow under a name."""
    return _TEXT.replace("NAME", name)


_TEXT = """\
# Run it:            flexcore workflow execute NAME
# With an input:     flexcore workflow execute NAME -p who=you
# Where it would go: flexcore workflow plan NAME
name: NAME
description: Greets somebody, and counts the letters of the name

# JSON Schema of the input.
inputs:
  type: object
  properties:
    who: {type: string, default: world}

steps:
  # A step's result is what main() returns; args become its keyword arguments.
  - id: greet
    type: python
    with:
      script: |
        def main(who):
            print(f"greeting {who}")
            return {"text": f"Hello, {who}!", "letters": len(who)}
      args:
        who: ${{ input.who }}

  # Steps run in order; later ones read the results of earlier ones.
  - id: shape
    type: transform
    with:
      value:
        greeting: ${{ results.greet.text }}
        is_long: ${{ results.greet.letters > 10 }}

output: ${{ results.shape }}
"""
