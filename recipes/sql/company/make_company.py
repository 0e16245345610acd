"""Writes `company.sql`: Otter & Oak, a group of eight veterinary clinics in the west of Ireland, invented here.

The names (clinics, people, medicines, services, suppliers) are the company's vocabulary and the same for every seed;
who works where, what things cost and everything that happened is drawn. So the questions written for seed 1 can be
asked of any other seed, and a query that is right by luck on one gives itself away on the other.

    python make_company.py                      rewrites company.sql (seed 1)
    python make_company.py --seed 2 --out FILE  the same schema, other rows
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random

Value = str | int | bool | Decimal | dt.date | dt.datetime | None
Rows = list[tuple[Value, ...]]

FIRST_DAY = dt.date(2023, 1, 2)
SNAPSHOT = dt.date(2025, 12, 12)
"""The day the books were copied: what comes later is booked, not done. Never today's date."""
LAST_DAY = dt.date(2025, 12, 31)

DDL = """\
CREATE TABLE clinics (
  id integer PRIMARY KEY,
  name text NOT NULL,
  city text NOT NULL,
  opened_on date NOT NULL,
  rooms integer NOT NULL,
  has_surgery boolean NOT NULL
);
CREATE TABLE vets (
  id integer PRIMARY KEY,
  clinic_id integer NOT NULL REFERENCES clinics (id),
  name text NOT NULL,
  specialty text,
  hired_on date NOT NULL,
  salary numeric NOT NULL
);
CREATE TABLE owners (
  id integer PRIMARY KEY,
  name text NOT NULL,
  city text NOT NULL,
  email text,
  joined_on date NOT NULL,
  newsletter boolean NOT NULL
);
CREATE TABLE pets (
  id integer PRIMARY KEY,
  owner_id integer NOT NULL REFERENCES owners (id),
  name text NOT NULL,
  species text NOT NULL,
  breed text,
  born_on date,
  weight_kg numeric,
  neutered boolean NOT NULL
);
CREATE TABLE appointments (
  id integer PRIMARY KEY,
  pet_id integer NOT NULL REFERENCES pets (id),
  vet_id integer NOT NULL REFERENCES vets (id),
  starts_at timestamp NOT NULL,
  minutes integer NOT NULL,
  reason text NOT NULL,
  status text NOT NULL
);
CREATE TABLE services (
  id integer PRIMARY KEY,
  name text NOT NULL,
  category text NOT NULL,
  price numeric NOT NULL
);
CREATE TABLE treatments (
  id integer PRIMARY KEY,
  appointment_id integer NOT NULL REFERENCES appointments (id),
  service_id integer NOT NULL REFERENCES services (id),
  charged numeric NOT NULL
);
CREATE TABLE invoices (
  id integer PRIMARY KEY,
  owner_id integer NOT NULL REFERENCES owners (id),
  clinic_id integer NOT NULL REFERENCES clinics (id),
  issued_on date NOT NULL,
  amount numeric NOT NULL,
  status text NOT NULL,
  paid_on date
);
CREATE TABLE suppliers (
  id integer PRIMARY KEY,
  name text NOT NULL,
  country text NOT NULL,
  partner_since date NOT NULL,
  lead_days integer NOT NULL
);
CREATE TABLE medicines (
  id integer PRIMARY KEY,
  supplier_id integer NOT NULL REFERENCES suppliers (id),
  name text NOT NULL,
  form text NOT NULL,
  price numeric NOT NULL,
  stock integer NOT NULL,
  controlled boolean NOT NULL
);
CREATE TABLE prescriptions (
  id integer PRIMARY KEY,
  pet_id integer NOT NULL REFERENCES pets (id),
  vet_id integer NOT NULL REFERENCES vets (id),
  medicine_id integer NOT NULL REFERENCES medicines (id),
  prescribed_on date NOT NULL,
  days integer NOT NULL
);
CREATE TABLE deliveries (
  id integer PRIMARY KEY,
  medicine_id integer NOT NULL REFERENCES medicines (id),
  clinic_id integer NOT NULL REFERENCES clinics (id),
  ordered_on date NOT NULL,
  arrived_on date,
  quantity integer NOT NULL,
  cost numeric NOT NULL
);
CREATE TABLE reviews (
  id integer PRIMARY KEY,
  owner_id integer NOT NULL REFERENCES owners (id),
  clinic_id integer NOT NULL REFERENCES clinics (id),
  written_on date NOT NULL,
  rating integer NOT NULL,
  comment text
);
COMMENT ON TABLE treatments IS 'what was done at an appointment, one row per service';
COMMENT ON COLUMN vets.specialty IS 'empty for general practice';
COMMENT ON COLUMN vets.salary IS 'euro a year';
COMMENT ON COLUMN pets.weight_kg IS 'at the last visit';
COMMENT ON COLUMN services.price IS 'list price in euro';
COMMENT ON COLUMN treatments.charged IS 'euro, after discount';
COMMENT ON COLUMN suppliers.lead_days IS 'promised days from order to delivery';
COMMENT ON COLUMN medicines.stock IS 'packs in the central store';
COMMENT ON COLUMN deliveries.arrived_on IS 'empty while on its way';
COMMENT ON COLUMN reviews.rating IS '1 (poor) to 5 (excellent)';
"""

# The vocabulary reads better as tables.
# fmt: off
CLINICS = [  # name, city, share of the business
    ("Claddagh Vets", "Galway", 20),
    ("Salthill Animal Clinic", "Galway", 11),
    ("Shannonside Vets", "Limerick", 17),
    ("Burren Vets", "Ennis", 9),
    ("Garavogue Animal Clinic", "Sligo", 12),
    ("Clew Bay Vets", "Westport", 6),
    ("Lee Valley Pet Hospital", "Cork", 18),
    ("Three Bridges Vets", "Athlone", 7),
]
VETS_PER_CLINIC = [5, 3, 4, 2, 3, 2, 4, 2]
CITIES = [  # where owners live, how many of them, the clinic (index) they usually go to; None: either of Galway's
    ("Galway", 30, None),
    ("Limerick", 20, 2),
    ("Cork", 22, 6),
    ("Sligo", 13, 4),
    ("Ennis", 10, 3),
    ("Athlone", 9, 7),
    ("Westport", 7, 5),
    ("Oranmore", 8, None),
    ("Tuam", 6, 0),
    ("Nenagh", 5, 2),
    ("Castlebar", 4, 5),
    ("Kinsale", 3, 6),
]
VET_NAMES = [
    "Ronan Daly", "Grace Keane", "Oisin Farrell", "Clare Moran", "Tomas Lynch", "Helen Barry", "Padraig Nolan",
    "Sarah Quinn", "Kevin Hayes", "Rita Coyne", "Marek Nowak", "Lucia Rossi", "Dermot Walsh", "Eva Lindgren",
    "Brian Tighe", "Una Sheridan", "Hugo Martins", "Nora Casey", "Alan Burke", "Sinead Foley", "Jonas Weber",
    "Maura Hynes", "Colm Geraghty", "Ines Duarte", "Fergal Roche",
]
SPECIALTIES = ["surgery", "dentistry", "dermatology", "cardiology", "exotics", None]
FIRST_NAMES = [
    "Aoife", "Niall", "Ciara", "Sean", "Emma", "Liam", "Orla", "Conor", "Maeve", "Declan", "Fiona", "Patrick",
    "Roisin", "Eoin", "Kate", "Michael", "Deirdre", "Owen", "Laura", "Cathal", "Anna", "Martin", "Siobhan", "David",
    "Grainne", "Peter", "Julia", "Shane", "Teresa", "Rory",
]
LAST_NAMES = [
    "Murphy", "Kelly", "Byrne", "Ryan", "O'Brien", "Walsh", "Joyce", "Flaherty", "Connolly", "Doyle", "Gallagher",
    "Brennan", "Burke", "Kennedy", "Lyons", "Mannion", "Costello", "Hughes", "Power", "Sweeney", "Kowalski",
    "Silva", "Healy", "Fahy", "Molloy",
]
OWNERS = 165

SPECIES: list[tuple[str, int, int]] = [  # species, share, greatest age in years
    ("dog", 48, 14),
    ("cat", 34, 17),
    ("rabbit", 10, 8),
    ("parrot", 4, 25),
    ("tortoise", 2, 40),
    ("hamster", 2, 2),
]
BREEDS: dict[str, list[tuple[str | None, float]]] = {  # commonest first, typical weight in kg; None: none on file
    "dog": [
        ("Labrador", 29), (None, 16), ("Border Collie", 18), ("Jack Russell", 7), ("Cocker Spaniel", 13),
        ("Golden Retriever", 31), ("Greyhound", 30), ("Beagle", 11), ("German Shepherd", 34), ("Irish Wolfhound", 58),
    ],
    "cat": [(None, 4), ("British Shorthair", 5), ("Siamese", 4), ("Maine Coon", 7), ("Persian", 4)],
    "rabbit": [(None, 2), ("Lionhead", 1.5), ("Dutch", 2)],
    "parrot": [("Cockatiel", 0.1), ("African Grey", 0.5), (None, 0.3)],
    "tortoise": [("Hermann", 1.2), (None, 1)],
    "hamster": [(None, 0.1)],
}
PET_NAMES = [
    "Bella", "Max", "Luna", "Charlie", "Molly", "Bailey", "Daisy", "Buddy", "Coco", "Rocky", "Milo", "Ruby",
    "Oscar", "Poppy", "Toby", "Shadow", "Ginger", "Pepper", "Biscuit", "Willow", "Finn", "Misty", "Smokey", "Rosie",
    "Teddy", "Simba", "Nala", "Bruno", "Honey", "Jasper", "Pumpkin", "Sooty", "Cleo", "Rex", "Maisie", "Fudge",
    "Olive", "Ziggy", "Hazel", "Rusty",
]

SERVICES = [  # name, category, list price in euro
    ("Consultation", "general", 55), ("Follow-up visit", "general", 32), ("Nail clipping", "general", 18),
    ("Microchipping", "prevention", 35), ("Annual vaccination", "prevention", 62),
    ("Rabies vaccination", "prevention", 74), ("Flea treatment", "prevention", 28), ("Worming", "prevention", 24),
    ("Blood test", "diagnostics", 88), ("X-ray", "diagnostics", 135), ("Ultrasound", "diagnostics", 165),
    ("Allergy test", "diagnostics", 142), ("ECG", "diagnostics", 110), ("Dental cleaning", "dental", 210),
    ("Tooth extraction", "dental", 180), ("Neutering", "surgery", 260), ("Tumour removal", "surgery", 690),
    ("Fracture repair", "surgery", 1450), ("Wound stitching", "surgery", 195), ("Overnight stay", "hospital", 120),
    ("Intravenous drip", "hospital", 95), ("Acupuncture", "wellness", 75), ("Physiotherapy", "wellness", 68),
]
REASONS = [  # reason, share, minutes, services it may lead to (the first is the usual one)
    ("checkup", 24, (15, 20, 30), ["Consultation", "Nail clipping", "Worming", "Flea treatment", "Microchipping"]),
    ("vaccination", 22, (15, 20), ["Annual vaccination", "Rabies vaccination", "Worming", "Flea treatment"]),
    ("itching", 11, (20, 30), ["Consultation", "Allergy test", "Flea treatment", "Blood test"]),
    ("limping", 9, (20, 30, 45), ["Consultation", "X-ray", "Physiotherapy", "Fracture repair"]),
    ("dental", 8, (45, 60, 75), ["Dental cleaning", "Tooth extraction", "X-ray"]),
    ("vomiting", 8, (20, 30), ["Consultation", "Blood test", "Ultrasound", "Intravenous drip"]),
    ("follow-up", 9, (15, 20), ["Follow-up visit", "Blood test", "Physiotherapy", "ECG"]),
    ("surgery", 5, (60, 90, 120, 150), ["Neutering", "Tumour removal", "Overnight stay", "Blood test"]),
    ("emergency", 4, (30, 45, 90), ["Consultation", "X-ray", "Wound stitching", "Intravenous drip", "Overnight stay"]),
]
SUPPLIERS = [  # name, country
    ("Atlantic Vet Supplies", "Ireland"), ("Boyne Laboratories", "Ireland"), ("Celtic Animal Health", "Ireland"),
    ("Pharmavet", "Germany"), ("Zoolab", "Germany"), ("Nordmed", "Denmark"), ("Tulip Veterinary", "Netherlands"),
    ("Thames Animal Care", "United Kingdom"), ("Iberovet", "Spain"), ("Alpina Vet", "Switzerland"),
    ("Camargue Pharma", "France"),
]
MEDICINES = [  # name, form, price in euro, controlled
    ("Amoxicillin", "tablet", 12, False), ("Cephalexin", "tablet", 15, False), ("Doxycycline", "tablet", 18, False),
    ("Clindamycin", "liquid", 21, False), ("Metronidazole", "tablet", 11, False),
    ("Carprofen", "tablet", 24, False), ("Meloxicam", "liquid", 19, False), ("Gabapentin", "liquid", 27, False),
    ("Tramadol", "tablet", 22, True), ("Methadone", "injection", 48, True),
    ("Buprenorphine", "injection", 63, True), ("Ketamine", "injection", 39, True),
    ("Diazepam", "injection", 17, True), ("Phenobarbital", "tablet", 26, True),
    ("Propofol", "injection", 54, False), ("Lidocaine", "injection", 9, False),
    ("Prednisolone", "tablet", 8, False), ("Cetirizine", "tablet", 7, False), ("Furosemide", "tablet", 10, False),
    ("Enalapril", "tablet", 16, False), ("Pimobendan", "tablet", 58, False), ("Insulin", "injection", 72, False),
    ("Levothyroxine", "tablet", 31, False), ("Methimazole", "tablet", 34, False),
    ("Maropitant", "injection", 66, False), ("Omeprazole", "liquid", 23, False),
    ("Ivermectin", "liquid", 14, False), ("Fenbendazole", "liquid", 13, False),
    ("Praziquantel", "tablet", 17, False), ("Selamectin", "drops", 29, False), ("Fipronil", "drops", 25, False),
    ("Timolol", "drops", 20, False), ("Tobramycin", "drops", 28, False), ("Atropine", "drops", 12, False),
    ("Chlorhexidine", "ointment", 11, False), ("Silver cream", "ointment", 36, False),
]
PRAISE = [
    "Lovely with nervous dogs", "Gentle and patient, thank you", "Seen right away on a Saturday",
    "Explained every cost beforehand", "Our cat actually purred", "Great team, easy parking",
    "Saved our old boy's life", "Friendly reception",
]
GRUMBLES = [
    "Waited almost an hour", "No parking anywhere near", "Too expensive for what was done",
    "Nobody called back with the results", "Charged twice, still waiting for the refund",
    "Friendly, but the waiting room is far too small", "Hard to get an appointment",
]
# fmt: on


def company_sql(seed: int) -> str:
    """The whole database as SQL text: tables, rows, comments; every statement ends with `;` and a line break.

    The same seed gives the same bytes on every machine.
    """
    tables = _draw(seed)
    created = [statement.strip() + ";\n" for statement in DDL.split(";\n") if statement.strip()]
    inserts = [_insert(name, rows) for name, rows in tables.items()]
    head = f"-- Otter & Oak, an invented group of veterinary clinics. Written by make_company.py --seed {seed}.\n"
    return head + "".join(created) + "".join(inserts)


def _draw(seed: int) -> dict[str, Rows]:
    """Every table's rows, parents before children."""
    clinics = _clinics(Random(f"clinics {seed}"))
    vets = _vets(Random(f"vets {seed}"))
    owners, usual_clinic = _owners(Random(f"owners {seed}"))
    pets = _pets(Random(f"pets {seed}"), owners)
    services = _services(Random(f"services {seed}"))
    suppliers = _suppliers(Random(f"suppliers {seed}"))
    medicines = _medicines(Random(f"medicines {seed}"))
    appointments = _appointments(Random(f"appointments {seed}"), owners, pets, vets, usual_clinic)
    treatments = _treatments(Random(f"treatments {seed}"), appointments, services)
    return {
        "clinics": clinics,
        "vets": vets,
        "owners": owners,
        "pets": pets,
        "appointments": appointments,
        "services": services,
        "treatments": treatments,
        "invoices": _invoices(Random(f"invoices {seed}"), appointments, treatments, pets, vets),
        "suppliers": suppliers,
        "medicines": medicines,
        "prescriptions": _prescriptions(Random(f"prescriptions {seed}"), appointments),
        "deliveries": _deliveries(Random(f"deliveries {seed}"), medicines, suppliers),
        "reviews": _reviews(Random(f"reviews {seed}"), owners, usual_clinic),
    }


def _clinics(rng: Random) -> Rows:
    surgeries = {0, 2, 6} | {rng.choice([1, 3, 4])}
    by_size = sorted(range(len(CLINICS)), key=lambda i: CLINICS[i][2] * rng.uniform(0.7, 1.3))
    rooms = dict(zip(by_size, sorted(rng.sample(range(2, 13), len(CLINICS))), strict=True))
    return [
        (i + 1, name, city, _day(rng, dt.date(1988, 3, 1), dt.date(2007, 11, 30)), rooms[i], i in surgeries)
        for i, (name, city, _) in enumerate(CLINICS)
    ]


def _vets(rng: Random) -> Rows:
    places = [i + 1 for i, n in enumerate(VETS_PER_CLINIC) for _ in range(n)]
    rng.shuffle(places)
    salaries = rng.sample(range(980, 1840), len(VET_NAMES))  # in steps of 50 euro, all different
    rows: Rows = []
    for i, name in enumerate(VET_NAMES):
        # The first of each clinic's vets was there before the books begin, so that every clinic can see patients.
        first = places.index(places[i]) == i
        hired = _day(rng, dt.date(2008, 1, 7), dt.date(2022, 12, 1) if first else dt.date(2025, 6, 30))
        specialty = rng.choices(SPECIALTIES, [5, 4, 3, 2, 3, 13])[0]
        rows.append((i + 1, places[i], name, specialty, hired, Decimal(salaries[i] * 50)))
    return rows


def _owners(rng: Random) -> tuple[Rows, list[int]]:
    """The owners, and for each the id of the clinic they usually go to."""
    pairs = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    names = Random("owners of every seed").sample(pairs, OWNERS)
    rows: Rows = []
    usual: list[int] = []
    for i, name in enumerate(names):
        city, _, clinic = rng.choices(CITIES, [share for _, share, _ in CITIES])[0]
        handle = name.lower().replace("'", "").replace(" ", rng.choice([".", "", "_"]))
        email = f"{handle}@{rng.choice(['gmail.com', 'gmail.com', 'eircom.net', 'outlook.ie'])}"
        joined = _day(rng, dt.date(2017, 1, 9), dt.date(2025, 11, 20))
        rows.append(
            (i + 1, name, city, email if rng.random() < 0.86 else None, joined, rng.random() < 0.38),
        )
        usual.append(1 + (rng.choices([0, 1], [20, 11])[0] if clinic is None else clinic))
    return rows, usual


def _pets(rng: Random, owners: Rows) -> Rows:
    rows: Rows = []
    for owner in owners:
        count = rng.choices([0, 1, 2, 3, 4, 6], [7, 52, 26, 10, 4, 1])[0]
        for name in rng.sample(PET_NAMES, count):
            species, _, oldest = rng.choices(SPECIES, [share for _, share, _ in SPECIES])[0]
            breed, typical = rng.choices(BREEDS[species], range(len(BREEDS[species]), 0, -1))[0]
            age = max(60, int(oldest * 365 * rng.betavariate(1.6, 2.4)))
            born = LAST_DAY - dt.timedelta(days=age)
            weight = _money(typical * rng.triangular(0.7, 1.4, 1.0), "0.01")
            rows.append(
                (
                    len(rows) + 1,
                    owner[0],
                    name,
                    species,
                    breed,
                    born if rng.random() < 0.93 else None,
                    weight if rng.random() < 0.95 else None,
                    species in {"dog", "cat", "rabbit"} and rng.random() < 0.6,
                )
            )
    return rows


def _services(rng: Random) -> Rows:
    return [
        (i + 1, name, category, _money(price * rng.uniform(0.9, 1.12), "0.50"))
        for i, (name, category, price) in enumerate(SERVICES)
    ]


def _suppliers(rng: Random) -> Rows:
    lead = rng.sample(range(2, 21), len(SUPPLIERS))
    return [
        (i + 1, name, country, _day(rng, dt.date(1999, 5, 1), dt.date(2024, 3, 1)), lead[i])
        for i, (name, country) in enumerate(SUPPLIERS)
    ]


def _medicines(rng: Random) -> Rows:
    # Shares differ so that no two suppliers carry the range alike; the last drawn carries nothing yet.
    order = rng.sample(range(1, len(SUPPLIERS) + 1), len(SUPPLIERS))
    shares = [9, 7, 5, 4, 3, 3, 2, 1, 1, 1]
    suppliers = [supplier for supplier, n in zip(order, shares, strict=False) for _ in range(n)]
    rng.shuffle(suppliers)
    stock = [0 if rng.random() < 0.07 else int(rng.triangular(3, 420, 30)) for _ in MEDICINES]
    return [
        (i + 1, suppliers[i], name, form, _money(price * rng.uniform(0.85, 1.2), "0.05"), stock[i], controlled)
        for i, (name, form, price, controlled) in enumerate(MEDICINES)
    ]


def _appointments(rng: Random, owners: Rows, pets: Rows, vets: Rows, usual_clinic: Sequence[int]) -> Rows:
    joined = {owner[0]: owner[4] for owner in owners}
    liked = {vet[0]: rng.choice([1, 2, 3, 5, 8]) for vet in vets}
    taken: set[tuple[Value, dt.datetime]] = set()
    drawn: list[tuple[dt.datetime, tuple[Value, ...]]] = []
    for pet in pets:
        start = max(_as_date(joined[pet[1]]), FIRST_DAY, _as_date(pet[5] or FIRST_DAY) + dt.timedelta(days=40))
        years = max(0.0, (LAST_DAY - start).days / 365)
        visits = rng.choices([0, 1, 2, 3, 5], [10, 30, 30, 20, 10])[0] * years
        clinic = usual_clinic[_as_int(pet[1]) - 1]
        for _ in range(int(visits + rng.random())):
            day = _open_day(_day(rng, start, LAST_DAY))
            where = clinic if rng.random() < 0.92 else rng.randint(1, len(CLINICS))
            able = [vet for vet in vets if vet[1] == where and _as_date(vet[4]) <= day]
            vet = rng.choices(able, [liked[vet[0]] for vet in able])[0]
            at = dt.datetime.combine(
                day, dt.time(rng.choice([8, 9, 9, 10, 10, 11, 14, 15, 16, 17]), rng.choice([0, 15, 30, 45]))
            )
            if (vet[0], at) in taken:
                continue
            taken.add((vet[0], at))
            reason, _, minutes, _ = rng.choices(REASONS, [share for _, share, _, _ in REASONS])[0]
            if day > SNAPSHOT and reason == "emergency":
                continue  # nobody books one
            status = "booked" if day > SNAPSHOT else rng.choices(["completed", "cancelled", "no_show"], [84, 10, 6])[0]
            drawn.append((at, (pet[0], vet[0], at, rng.choice(minutes), reason, status)))
    drawn.sort(key=lambda item: (item[0], str(item[1])))
    return [(i + 1, *row) for i, (_, row) in enumerate(drawn)]


def _treatments(rng: Random, appointments: Rows, services: Rows) -> Rows:
    ids = {service[1]: service for service in services}
    offered = {reason: names for reason, _, _, names in REASONS}
    rows: Rows = []
    for appointment in appointments:
        if appointment[6] != "completed":
            continue
        usual, *others = offered[str(appointment[5])]
        # Later services in the list are the rarer ones; a fracture is not repaired at every limp.
        rarity = [2 ** (len(others) - i) for i in range(len(others))]
        names = [usual] if rng.random() < 0.88 else []
        for _ in range(rng.choices([0, 1, 2], [50, 38, 12])[0]):
            names.append(rng.choices(others, rarity)[0])
        for name in dict.fromkeys(names or [usual]):
            service = ids[name]
            discount = rng.choices([1.0, 0.9, 0.8, 1.0 + rng.uniform(0, 0.2)], [70, 14, 6, 10])[0]
            rows.append((len(rows) + 1, appointment[0], service[0], _money(float(str(service[3])) * discount, "0.01")))
    return rows


def _invoices(rng: Random, appointments: Rows, treatments: Rows, pets: Rows, vets: Rows) -> Rows:
    """One invoice for each completed appointment, for the sum of what was charged there."""
    charged: dict[Value, Decimal] = {}
    for treatment in treatments:
        charged[treatment[1]] = charged.get(treatment[1], Decimal(0)) + Decimal(str(treatment[3]))
    owner_of = {pet[0]: pet[1] for pet in pets}
    clinic_of = {vet[0]: vet[1] for vet in vets}
    slow = {owner: rng.random() < 0.12 for owner in sorted({_as_int(pet[1]) for pet in pets})}
    rows: Rows = []
    for appointment in appointments:
        if appointment[0] not in charged:
            continue
        owner = _as_int(owner_of[appointment[1]])
        issued = _as_date(appointment[3]) + dt.timedelta(days=rng.choice([0, 0, 0, 1, 2, 5]))
        paid = issued + dt.timedelta(
            days=rng.choice([0, 0, 0, 3, 9, 14, 28]) + (rng.randint(20, 70) if slow[owner] else 0)
        )
        age = (SNAPSHOT - issued).days
        status = "paid"
        if paid > SNAPSHOT or rng.random() < (0.25 if slow[owner] else 0.03):
            status = "open" if age < 30 else "overdue" if age < 420 else "written_off"
        amount = charged[appointment[0]]
        rows.append(
            (
                len(rows) + 1,
                owner,
                clinic_of[appointment[2]],
                issued,
                amount,
                status,
                paid if status == "paid" else None,
            )
        )
    return rows


def _prescriptions(rng: Random, appointments: Rows) -> Rows:
    # Injections are mostly given at the clinic, not prescribed to take home.
    popular = [
        rng.choice([0, 1, 1, 2]) if form == "injection" else rng.choice([0, 1, 2, 3, 5, 8, 13, 21])
        for _, form, _, _ in MEDICINES
    ]
    rows: Rows = []
    for appointment in appointments:
        if appointment[6] != "completed" or appointment[5] == "vaccination" or rng.random() > 0.42:
            continue
        medicine = rng.choices(range(1, len(MEDICINES) + 1), popular)[0]
        days = rng.choices([3, 5, 7, 10, 14, 28, 60, 90], [6, 14, 24, 18, 16, 10, 4, 2])[0]
        rows.append((len(rows) + 1, appointment[1], appointment[2], medicine, _as_date(appointment[3]), days))
    return rows


def _deliveries(rng: Random, medicines: Rows, suppliers: Rows) -> Rows:
    lead = {supplier[0]: _as_int(supplier[4]) for supplier in suppliers}
    wanted = [rng.choice([1, 2, 3, 5, 8]) for _ in medicines]
    drawn: list[tuple[Value, ...]] = []
    for _ in range(290):
        medicine = rng.choices(medicines, wanted)[0]
        clinic = rng.choices(range(1, len(CLINICS) + 1), [share for _, _, share in CLINICS])[0]
        ordered = _open_day(_day(rng, FIRST_DAY, SNAPSHOT))
        late = rng.choices([-1, 0, 1, 3, 8, 19], [14, 40, 22, 13, 8, 3])[0]
        arrived = ordered + dt.timedelta(days=max(1, lead[medicine[1]] + late))
        quantity = rng.choice([5, 10, 10, 12, 20, 20, 24, 30, 40, 50, 60, 100])
        cost = _money(quantity * float(str(medicine[4])) * rng.uniform(0.52, 0.68), "0.01")
        drawn.append((medicine[0], clinic, ordered, arrived if arrived <= SNAPSHOT else None, quantity, cost))
    drawn.sort(key=lambda row: (_as_date(row[2]), str(row)))
    return [(i + 1, *row) for i, row in enumerate(drawn)]


def _reviews(rng: Random, owners: Rows, usual_clinic: Sequence[int]) -> Rows:
    charm = [rng.uniform(0.5, 3.0) for _ in CLINICS]
    drawn: list[tuple[Value, ...]] = []
    for _ in range(210):
        owner = rng.choice(owners)
        clinic = usual_clinic[_as_int(owner[0]) - 1] if rng.random() < 0.9 else rng.randint(1, len(CLINICS))
        rating = rng.choices([1, 2, 3, 4, 5], [1.4, 1.2, 2, 3 * charm[clinic - 1], 4 * charm[clinic - 1]])[0]
        words = PRAISE if rating >= 4 else GRUMBLES
        comment = rng.choice(words) if rng.random() < (0.5 if rating >= 4 else 0.8) else None
        written = _day(rng, max(FIRST_DAY, _as_date(owner[4])), SNAPSHOT)
        drawn.append((owner[0], clinic, written, rating, comment))
    drawn.sort(key=lambda row: (_as_date(row[2]), str(row)))
    return [(i + 1, *row) for i, row in enumerate(drawn)]


def _day(rng: Random, first: dt.date, last: dt.date) -> dt.date:
    return first + dt.timedelta(days=rng.randint(0, (last - first).days)) if last > first else first


def _open_day(day: dt.date) -> dt.date:
    """The clinics are closed on Sundays and from Christmas Eve to Saint Stephen's Day: the last open day before."""
    while day.weekday() == 6 or (day.month, day.day) in {(12, 24), (12, 25), (12, 26)}:
        day -= dt.timedelta(days=1)
    return day


def _money(amount: float, step: str) -> Decimal:
    unit = Decimal(step)
    return (round(Decimal(repr(amount)) / unit) * unit).quantize(Decimal("0.01"))


def _as_date(value: Value) -> dt.date:
    assert isinstance(value, dt.date)
    return value.date() if isinstance(value, dt.datetime) else value


def _as_int(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _insert(table: str, rows: Iterable[tuple[Value, ...]]) -> str:
    lines = [f"({', '.join(_literal(value) for value in row)})" for row in rows]
    return f"INSERT INTO {table} VALUES\n" + ",\n".join(lines) + ";\n"


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the example database as SQL.")
    parser.add_argument("--seed", type=int, default=1, help="1 is the committed company.sql (default)")
    parser.add_argument("--out", type=Path, help="file to write; needed for any seed but 1")
    arguments = parser.parse_args()
    if arguments.out is None and arguments.seed != 1:
        parser.error("company.sql holds seed 1: name another file with --out")
    out: Path = arguments.out or Path(__file__).with_name("company.sql")
    out.write_text(company_sql(arguments.seed), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
