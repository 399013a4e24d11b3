"""Who may do what to whose: one row for each operation and object, a status for each role. tests/security/test_matrix.py asks.

The object is `own` (the caller's where a customer calls, some customer's where staff do; of API keys and sessions: the
caller's), `foreign` (another's), `any` (it is nobody's in particular), `unknown` (there is none), or `-` where the path names
none. The last column is a caller without credentials. The statuses are written down here and not taken from `fleet.auth`: who
changes what a role may do changes them here too. What each operation is asked with stands in tests/security/matrix_scenes.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

CALLERS = (
    "admin", "fleet_manager", "rental_agent", "maintenance_staff", "accountant", "driver", "customer", "nobody",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What an operation answers to each caller, asked for one kind of object."""

    operation: str
    object: str
    statuses: dict[str, int]


def rows() -> Iterator[Row]:
    """The table, row by row."""
    for line in TABLE.splitlines():
        if line.strip():
            operation, object_, *statuses = line.split()
            yield Row(operation, object_, dict(zip(CALLERS, map(int, statuses), strict=True)))


# operation, object                           adm mgr agt mec acc drv cus none
TABLE = """
access_change_password              -        204 204 204 204 204 204 204 401
access_jwks                         -        200 200 200 200 200 200 200 200
access_login                        -        200 200 200 200 200 200 200 200
access_logout                       -        204 204 204 204 204 204 204 204
access_refresh                      -        200 200 200 200 200 200 200 200

api_keys_create                     -        201 201 201 201 201 403 201 401
api_keys_index                      -        200 200 200 200 200 403 200 401
api_keys_revoke                     own      204 204 204 204 204 403 204 401
api_keys_revoke                     foreign  404 404 404 404 404 403 404 401
api_keys_revoke                     unknown  404 404 404 404 404 403 404 401
api_keys_show                       own      200 200 200 200 200 403 200 401
api_keys_show                       foreign  404 404 404 404 404 403 404 401
api_keys_show                       unknown  404 404 404 404 404 403 404 401

audit_index                         -        200 403 403 403 403 403 403 401

branches_change                     any      200 200 403 403 403 403 403 401
branches_change                     unknown  404 404 403 403 403 403 403 401
branches_create                     -        201 201 403 403 403 403 403 401
branches_index                      -        200 200 200 200 200 200 200 401
branches_remove                     any      204 204 403 403 403 403 403 401
branches_remove                     unknown  404 404 403 403 403 403 403 401
branches_show                       any      200 200 200 200 200 200 200 401
branches_show                       unknown  404 404 404 404 404 404 404 401

cache_flush                         -        200 403 403 403 403 403 403 401
cache_show                          -        200 200 403 403 403 403 403 401

calendar_block                      any      201 201 201 201 403 403 403 401
calendar_block                      unknown  404 404 404 404 403 403 403 401
calendar_feed                       any      200 200 200 200 403 403 403 401
calendar_feed                       unknown  404 404 404 404 403 403 403 401
calendar_free                       -        200 200 200 200 200 200 200 401
calendar_show                       any      200 200 200 200 403 403 403 401
calendar_show                       unknown  404 404 404 404 403 403 403 401
calendar_show_block                 any      200 200 200 200 403 403 403 401
calendar_show_block                 unknown  404 404 404 404 403 403 403 401
calendar_summary                    -        200 200 200 200 200 200 200 401
calendar_unblock                    any      204 204 204 204 403 403 403 401
calendar_unblock                    unknown  404 404 404 404 403 403 403 401

card_events_take                    -        204 204 204 204 204 204 204 204

circuit_breakers_force_closed       any      200 403 403 403 403 403 403 401
circuit_breakers_force_closed       unknown  404 403 403 403 403 403 403 401
circuit_breakers_force_open         any      200 403 403 403 403 403 403 401
circuit_breakers_force_open         unknown  404 403 403 403 403 403 403 401
circuit_breakers_index              -        200 200 403 403 403 403 403 401
circuit_breakers_release            any      200 403 403 403 403 403 403 401
circuit_breakers_release            unknown  404 403 403 403 403 403 403 401

customers_change                    own      200 200 200 403 403 403 200 401
customers_change                    foreign  200 200 200 403 403 403 404 401
customers_change                    unknown  404 404 404 403 403 403 404 401
customers_create                    -        201 201 201 403 403 403 201 401
customers_deactivate                own      200 200 200 403 403 403 403 401
customers_deactivate                foreign  200 200 200 403 403 403 403 401
customers_deactivate                unknown  404 404 404 403 403 403 403 401
customers_erase                     own      200 200 403 403 403 403 403 401
customers_erase                     foreign  200 200 403 403 403 403 403 401
customers_erase                     unknown  404 404 403 403 403 403 403 401
customers_export                    own      200 200 200 403 403 403 200 401
customers_export                    foreign  200 200 200 403 403 403 404 401
customers_export                    unknown  404 404 404 403 403 403 404 401
customers_index                     -        200 200 200 403 200 403 200 401
customers_show                      own      200 200 200 403 200 403 200 401
customers_show                      foreign  200 200 200 403 200 403 404 401
customers_show                      unknown  404 404 404 403 404 403 404 401

dead_letters_discard                any      200 403 403 403 403 403 403 401
dead_letters_discard                unknown  404 403 403 403 403 403 403 401
dead_letters_index                  -        200 403 403 403 403 403 403 401
dead_letters_replay                 any      200 403 403 403 403 403 403 401
dead_letters_replay                 unknown  404 403 403 403 403 403 403 401
dead_letters_replay_chosen          -        200 403 403 403 403 403 403 401
dead_letters_show                   any      200 403 403 403 403 403 403 401
dead_letters_show                   unknown  404 403 403 403 403 403 403 401

events_index                        -        200 200 403 403 200 403 403 401

invoices_document                   own      200 200 200 403 200 403 200 401
invoices_document                   foreign  200 200 200 403 200 403 404 401
invoices_document                   unknown  404 404 404 403 404 403 404 401
invoices_index                      -        200 200 200 403 200 403 200 401
invoices_show                       own      200 200 200 403 200 403 200 401
invoices_show                       foreign  200 200 200 403 200 403 404 401
invoices_show                       unknown  404 404 404 403 404 403 404 401

ledger_accounts                     -        200 200 403 403 200 403 403 401
ledger_balance                      any      200 200 403 403 200 403 403 401
ledger_balance                      unknown  404 404 403 403 404 403 403 401
ledger_entries                      -        200 200 403 403 200 403 403 401
ledger_open_account                 -        201 403 403 403 201 403 403 401
ledger_post                         -        201 403 403 403 201 403 403 401
ledger_reconcile                    -        200 403 403 403 200 403 403 401
ledger_reverse                      any      201 403 403 403 201 403 403 401
ledger_reverse                      unknown  404 403 403 403 404 403 403 401
ledger_show                         any      200 200 403 403 200 403 403 401
ledger_show                         unknown  404 404 403 403 404 403 403 401

notifications_ask_to_unsubscribe    -        200 200 200 200 200 200 200 200
notifications_choose                own      200 200 200 403 403 403 200 401
notifications_choose                foreign  200 200 200 403 403 403 404 401
notifications_choose                unknown  404 404 404 403 403 403 404 401
notifications_index                 -        200 200 200 403 200 403 403 401
notifications_show                  own      200 200 200 403 200 403 200 401
notifications_show                  foreign  200 200 200 403 200 403 404 401
notifications_show                  unknown  404 404 404 403 404 403 404 401
notifications_unsubscribe           -        200 200 200 200 200 200 200 200

operations_health                   -        200 200 200 200 200 200 200 200
operations_live                     -        200 200 200 200 200 200 200 200
operations_openapi_document         -        200 200 200 200 200 200 200 200
operations_prometheus               -        200 200 200 200 200 200 200 200
operations_ready                    -        200 200 200 200 200 200 200 200

payments_approve_refund             own      200 200 403 403 200 403 403 401
payments_approve_refund             foreign  200 200 403 403 200 403 403 401
payments_approve_refund             unknown  404 404 403 403 404 403 403 401
payments_create                     own      201 201 201 403 201 403 201 401
payments_create                     foreign  201 201 201 403 201 403 404 401
payments_index                      -        200 200 200 403 200 403 200 401
payments_index_refunds              -        200 200 200 403 200 403 200 401
payments_refunds_of_payment         own      200 200 200 403 200 403 200 401
payments_refunds_of_payment         foreign  200 200 200 403 200 403 404 401
payments_refunds_of_payment         unknown  404 404 404 403 404 403 404 401
payments_reject_refund              own      200 200 403 403 200 403 403 401
payments_reject_refund              foreign  200 200 403 403 200 403 403 401
payments_reject_refund              unknown  404 404 403 403 404 403 403 401
payments_request_refund             own      201 201 201 403 201 403 403 401
payments_request_refund             foreign  201 201 201 403 201 403 403 401
payments_request_refund             unknown  404 404 404 403 404 403 403 401
payments_show                       own      200 200 200 403 200 403 200 401
payments_show                       foreign  200 200 200 403 200 403 404 401
payments_show                       unknown  404 404 404 403 404 403 404 401
payments_show_refund                own      200 200 200 403 200 403 200 401
payments_show_refund                foreign  200 200 200 403 200 403 404 401
payments_show_refund                unknown  404 404 404 403 404 403 404 401

queues_show                         -        200 200 403 403 403 403 403 401

recovery_ask_for_reset              -        202 202 202 202 202 202 202 202
recovery_ask_for_verification       -        202 202 202 202 202 202 202 401
recovery_reset                      -        204 204 204 204 204 204 204 204
recovery_reset_page                 -        200 200 200 200 200 200 200 200
recovery_verification_page          -        200 200 200 200 200 200 200 200
recovery_verify                     -        204 204 204 204 204 204 204 204

rentals_activate                    own      200 200 200 403 403 403 403 401
rentals_activate                    foreign  200 200 200 403 403 403 403 401
rentals_activate                    unknown  404 404 404 403 403 403 403 401
rentals_add_charge                  own      201 201 201 403 403 403 403 401
rentals_add_charge                  foreign  201 201 201 403 403 403 403 401
rentals_add_charge                  unknown  404 404 404 403 403 403 403 401
rentals_cancel                      own      200 200 200 403 403 403 200 401
rentals_cancel                      foreign  200 200 200 403 403 403 404 401
rentals_cancel                      unknown  404 404 404 403 403 403 404 401
rentals_change                      own      200 200 200 403 403 403 403 401
rentals_change                      foreign  200 200 200 403 403 403 403 401
rentals_change                      unknown  404 404 404 403 403 403 403 401
rentals_charges                     own      200 200 200 403 200 403 200 401
rentals_charges                     foreign  200 200 200 403 200 403 404 401
rentals_charges                     unknown  404 404 404 403 404 403 404 401
rentals_complete                    own      200 200 200 403 403 403 403 401
rentals_complete                    foreign  200 200 200 403 403 403 403 401
rentals_complete                    unknown  404 404 404 403 403 403 403 401
rentals_confirm                     own      200 200 200 403 403 403 200 401
rentals_confirm                     foreign  200 200 200 403 403 403 404 401
rentals_confirm                     unknown  404 404 404 403 403 403 404 401
rentals_index                       -        200 200 200 403 200 403 200 401
rentals_no_show                     own      200 200 200 403 403 403 403 401
rentals_no_show                     foreign  200 200 200 403 403 403 403 401
rentals_no_show                     unknown  404 404 404 403 403 403 403 401
rentals_reserve                     own      201 201 201 403 403 403 201 401
rentals_reserve                     foreign  201 201 201 403 403 403 422 401
rentals_show                        own      200 200 200 403 200 403 200 401
rentals_show                        foreign  200 200 200 403 200 403 404 401
rentals_show                        unknown  404 404 404 403 404 403 404 401

second_factors_confirm              -        200 200 200 200 200 200 403 401
second_factors_disable              -        204 204 204 204 204 204 409 401
second_factors_enrol                -        201 201 201 201 201 201 403 401
second_factors_remove               any      204 403 403 403 403 403 403 401
second_factors_remove               unknown  404 403 403 403 403 403 403 401
second_factors_renew_recovery_codes -        200 200 200 200 200 200 409 401
second_factors_show                 -        200 200 200 200 200 200 200 401

sessions_end                        own      204 204 204 204 204 204 204 401
sessions_end                        foreign  404 404 404 404 404 404 404 401
sessions_end                        unknown  404 404 404 404 404 404 404 401
sessions_end_of_user                any      204 403 403 403 403 403 403 401
sessions_end_of_user                unknown  404 403 403 403 403 403 403 401
sessions_end_others                 -        204 204 204 204 204 204 204 401
sessions_index                      -        200 200 200 200 200 200 200 401

users_change                        any      200 403 403 403 403 403 403 401
users_change                        unknown  404 403 403 403 403 403 403 401
users_create                        -        201 403 403 403 403 403 403 401
users_deactivate                    any      200 403 403 403 403 403 403 401
users_deactivate                    unknown  404 403 403 403 403 403 403 401
users_index                         -        200 403 403 403 403 403 403 401
users_me                            -        200 200 200 200 200 200 200 401
users_register                      -        201 201 201 201 201 201 201 201
users_set_roles                     any      200 403 403 403 403 403 403 401
users_set_roles                     unknown  404 403 403 403 403 403 403 401
users_show                          any      200 403 403 403 403 403 403 401
users_show                          unknown  404 403 403 403 403 403 403 401

vehicle_classes_change              any      200 200 403 403 403 403 403 401
vehicle_classes_change              unknown  404 404 403 403 403 403 403 401
vehicle_classes_create              -        201 201 403 403 403 403 403 401
vehicle_classes_index               -        200 200 200 200 200 200 200 401
vehicle_classes_remove              any      204 204 403 403 403 403 403 401
vehicle_classes_remove              unknown  404 404 403 403 403 403 403 401
vehicle_classes_show                any      200 200 200 200 200 200 200 401
vehicle_classes_show                unknown  404 404 404 404 404 404 404 401

vehicles_change                     any      200 200 403 403 403 403 403 401
vehicles_change                     unknown  404 404 403 403 403 403 403 401
vehicles_index                      -        200 200 200 200 200 200 200 401
vehicles_move                       any      200 200 403 200 403 403 403 401
vehicles_move                       unknown  404 404 403 404 403 403 403 401
vehicles_reading                    any      200 200 200 200 403 403 403 401
vehicles_reading                    unknown  404 404 404 404 403 403 403 401
vehicles_readings                   any      200 200 200 200 403 403 403 401
vehicles_readings                   unknown  404 404 404 404 403 403 403 401
vehicles_record                     any      201 201 201 201 403 403 403 401
vehicles_record                     unknown  404 404 404 404 403 403 403 401
vehicles_register                   -        201 201 403 403 403 403 403 401
vehicles_remove                     any      204 204 403 403 403 403 403 401
vehicles_remove                     unknown  404 404 403 403 403 403 403 401
vehicles_show                       any      200 200 200 200 200 200 200 401
vehicles_show                       unknown  404 404 404 404 404 404 404 401

webhooks_change                     any      200 403 403 403 403 403 403 401
webhooks_change                     unknown  404 403 403 403 403 403 403 401
webhooks_create                     -        201 403 403 403 403 403 403 401
webhooks_deliveries                 any      200 403 403 403 403 403 403 401
webhooks_deliveries                 unknown  404 403 403 403 403 403 403 401
webhooks_index                      -        200 403 403 403 403 403 403 401
webhooks_redeliver                  any      200 403 403 403 403 403 403 401
webhooks_redeliver                  unknown  404 403 403 403 403 403 403 401
webhooks_remove                     any      204 403 403 403 403 403 403 401
webhooks_remove                     unknown  404 403 403 403 403 403 403 401
webhooks_rotate_secret              any      200 403 403 403 403 403 403 401
webhooks_rotate_secret              unknown  404 403 403 403 403 403 403 401
webhooks_show                       any      200 403 403 403 403 403 403 401
webhooks_show                       unknown  404 403 403 403 403 403 403 401
webhooks_show_delivery              any      200 403 403 403 403 403 403 401
webhooks_show_delivery              unknown  404 403 403 403 403 403 403 401
webhooks_test                       any      202 403 403 403 403 403 403 401
webhooks_test                       unknown  404 403 403 403 403 403 403 401
"""
