"""What the business decides, as pure code: values in, values out. No database, no Flask, no clock, no environment."""
