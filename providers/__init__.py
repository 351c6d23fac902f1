"""The providers: how each is asked, and when it is asked again."""
