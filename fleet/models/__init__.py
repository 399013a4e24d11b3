"""Tables, their scoped queries and their hot statements. No rules of money, no mail."""
