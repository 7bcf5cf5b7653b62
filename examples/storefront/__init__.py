"""A storefront that sells packs and cards: an example to copy. Its README says what is where."""
