"""`python -m ftlearn ...`: the commands of `ftlearn.command`."""


def main():
    """Run the command line; imported late, so that its errors are its own."""
    from ftlearn.command import main

    return main()


if __name__ == "__main__":
    raise SystemExit(main())
