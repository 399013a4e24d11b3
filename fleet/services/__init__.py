"""One public function per use case: it takes an Actor, opens the transaction, and tells one story."""
