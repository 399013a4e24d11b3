"""What the demo is made of: real makes and models, invented people, branches in several time zones."""

from typing import NamedTuple


class BranchSpec(NamedTuple):
    code: str
    name: str
    timezone: str
    currency: str
    tax_code: str
    address: str


class ClassSpec(NamedTuple):
    code: str
    name: str
    daily_rate: int
    late_fee_per_hour: int
    passenger_capacity: int
    models: tuple[tuple[str, str, str], ...]


TAXES = {"PT-23": ("IVA 23 %", 2300), "DE-19": ("USt 19 %", 1900), "FR-20": ("TVA 20 %", 2000), "IE-23": ("VAT 23 %", 2300)}

BRANCHES = (
    BranchSpec("LIS", "Lisbon Airport", "Europe/Lisbon", "EUR", "PT-23", "Alameda das Comunidades, Lisbon"),
    BranchSpec("BER", "Berlin Central", "Europe/Berlin", "EUR", "DE-19", "Europaplatz 1, Berlin"),
    BranchSpec("PAR", "Paris Gare de Lyon", "Europe/Paris", "EUR", "FR-20", "Place Louis-Armand, Paris"),
    BranchSpec("DUB", "Dublin Docklands", "Europe/Dublin", "EUR", "IE-23", "Sir John Rogerson's Quay, Dublin"),
    BranchSpec("PDL", "Ponta Delgada", "Atlantic/Azores", "EUR", "PT-23", "Estrada da Ribeira Grande, Ponta Delgada"),
    BranchSpec("CAY", "Cayenne", "America/Cayenne", "EUR", "NONE", "Avenue du Général de Gaulle, Cayenne"),
)

OPENING_HOURS = {
    **{day: ["07:00-21:00"] for day in ("mon", "tue", "wed", "thu", "fri")},
    "sat": ["08:00-18:00"],
    "sun": ["09:00-13:00", "15:00-18:00"],
}

CLASSES = (
    ClassSpec("MINI", "Mini", 2900, 700, 4, (
        ("Fiat", "500", "petrol"), ("Toyota", "Aygo X", "petrol"), ("Hyundai", "i10", "petrol"), ("Kia", "Picanto", "petrol"),
    )),
    ClassSpec("ECONOMY", "Economy", 3500, 900, 5, (
        ("Renault", "Clio", "petrol"), ("Volkswagen", "Polo", "petrol"), ("Peugeot", "208", "petrol"),
        ("Opel", "Corsa", "petrol"), ("Skoda", "Fabia", "petrol"),
    )),
    ClassSpec("COMPACT", "Compact", 4500, 1200, 5, (
        ("Volkswagen", "Golf", "diesel"), ("Toyota", "Corolla", "hybrid"), ("Ford", "Focus", "diesel"),
        ("Seat", "Leon", "petrol"), ("Mazda", "3", "petrol"),
    )),
    ClassSpec("ELECTRIC", "Electric", 5900, 1500, 5, (
        ("Tesla", "Model 3", "electric"), ("Renault", "Megane E-Tech", "electric"), ("Volkswagen", "ID.3", "electric"),
        ("BMW", "i4", "electric"),
    )),
    ClassSpec("SUV", "SUV", 6900, 1800, 5, (
        ("Nissan", "Qashqai", "petrol"), ("Hyundai", "Tucson", "hybrid"), ("Dacia", "Duster", "diesel"),
        ("Volvo", "XC40", "hybrid"),
    )),
    ClassSpec("VAN", "Minivan", 9900, 2500, 9, (
        ("Volkswagen", "Caravelle", "diesel"), ("Mercedes-Benz", "V-Class", "diesel"), ("Ford", "Tourneo Custom", "diesel"),
    )),
)  # fmt: skip

COLORS = ("white", "black", "grey", "silver", "blue", "red", "green")

FIRST_NAMES = (
    "Ana", "Bruno", "Carla", "Diogo", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Katrin", "Lucas", "Maria",
    "Niamh", "Oscar", "Paula", "Quentin", "Rita", "Sofia", "Tomas", "Ursula", "Vera", "Walter", "Xavier", "Yara", "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Almeida", "Becker", "Costa", "Dubois", "Esteves", "Fischer", "Garcia", "Hoffmann", "Ivanova", "Jensen", "Keller",
    "Lefevre", "Martins", "Novak", "O'Brien", "Pereira", "Quinn", "Richter", "Santos", "Teixeira", "Urban", "Vieira",
    "Weber", "Xu", "Yilmaz", "Zimmermann",
)  # fmt: skip

FINDINGS = (
    ("damage", "Scratch on the rear bumper", 18_000),
    ("damage", "Chipped windscreen", 24_500),
    ("cleaning", "Interior cleaning", 4_500),
    ("toll", "Motorway toll", 1_850),
    ("fine", "Parking fine", 3_500),
)
