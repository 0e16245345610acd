# ruff: noqa: E501  lists of words are easier to read unbroken
"""Vocabulary of the synthetic databases: what tables, columns and values are called."""

from __future__ import annotations

import random
import re
from functools import cache

# domain: entities. The letter says what sort of thing it is, which decides its columns:
# p person, o organisation, l place, i item, e event or transaction, d document, k kind or category, v vehicle, a animal.
DOMAINS = """
retail: customer/p product/i order/e order_item/e supplier/o category/k brand/o review/e invoice/d payment/e
 return/e
 coupon/i shelf/l cart/e refund/e store/l cashier/p promotion/e wishlist/d gift_card/i
clinic: patient/p doctor/p nurse/p appointment/e prescription/d treatment/e diagnosis/k ward/l visit/e medicine/i
 allergy/k
 vaccine/i lab_test/e referral/d surgery/e symptom/k
school: student/p teacher/p course/k class/l grade/e exam/e subject/k enrollment/e department/o homework/d
 classroom/l
 lesson/e semester/e guardian/p scholarship/d textbook/i
farm: field/l crop/k harvest/e tractor/v farmer/p barn/l animal/a fertilizer/i irrigation_log/e seed/i greenhouse/l
 silo/l
 orchard/l herd/k
airline: flight/e passenger/p airport/l aircraft/v ticket/d pilot/p booking/e gate/l baggage/i crew_member/p route/l
 delay/e
 terminal/l
library: book/i author/p member/p loan/e branch/l publisher/o genre/k reservation/e copy/i librarian/p fine/e
 magazine/i
football: team/o player/p match/e goal/e stadium/l coach/p league/o season/e transfer/e referee/p injury/e trophy/i
 fan_club/o
laboratory: sample/i experiment/e researcher/p instrument/i reagent/i measurement/e protocol/d freezer/l result/e
 assay/k
 calibration/e culture/i
government: citizen/p permit/d agency/o tax_return/d district/l complaint/e election/e candidate/p vote/e license/d
 inspector/p
 inspection/e budget_line/d
gaming: gamer/p guild/o quest/k weapon/i achievement/k item/i session/e server/l score/e tournament/e level/k
 character/p skill/k
 battle/e
bank: account/i client/p loan_contract/d deposit/e card/i branch_office/l transaction/e teller/p credit_check/e
 mortgage/d
 withdrawal/e currency/k
insurance: policy/d claim/e policyholder/p adjuster/p premium/e agent/p coverage/k accident/e beneficiary/p
restaurant: dish/i menu/d waiter/p dining_table/l bill/d chef/p ingredient/i recipe/d reservation_slot/e guest/p
 tip/e kitchen/l
hotel: room/l stay/e visitor/p housekeeper/p amenity/k room_type/k check_in/e minibar_sale/e floor/l concierge/p
logistics: shipment/e warehouse/l driver/p truck/v parcel/i delivery/e depot/l carrier/o pallet/i container/i
 customs_form/d
 dispatch/e
software: user/p project/i task/e issue/e commit/e repository/i release/e comment/e milestone/e deployment/e
 incident/e
 feature/k bug/e pull_request/e build/e
music: artist/p album/i track/i concert/e playlist/d label/o band/o instrument_rental/e venue/l festival/e song/i
 listener/p
film: movie/i actor/p director/p studio/o screening/e cinema/l rating/e role/k award/e scene/i episode/i series/i
museum: exhibit/i exhibition/e curator/p gallery/l donation/e painting/i sculptor/p tour/e artifact/i restoration/e
realestate: property/l tenant/p landlord/p lease/d apartment/l viewing/e broker/p offer/e neighborhood/l
 maintenance_request/e
energy: meter/i reading/e power_plant/l household/o tariff/k outage/e turbine/i substation/l solar_panel/i
 grid_operator/o
telecom: subscriber/p plan/k call/e message/e tower/l handset/i roaming_charge/e data_usage/e contract/d
manufacturing: machine/i factory/l worker/p shift/e part/i assembly/i defect/e work_order/d batch/i mold/i
 production_line/l
 quality_check/e
hr: employee/p position/k salary_payment/e leave_request/d training/e applicant/p interview/e office/l benefit/k
 timesheet/d
 contract_type/k appraisal/e
charity: donor/p volunteer/p campaign/e grant/d pledge/e shelter/l food_parcel/i fundraiser/e beneficiary_group/o
zoo: keeper/p enclosure/l species/k feeding/e animal_transfer/e veterinarian/p checkup/e habitat/l
gym: trainer/p workout/e membership/d locker/i equipment/i session_slot/e exercise/k athlete/p
publishing: article/d editor/p newspaper/o journalist/p subscriber_list/d issue_number/d column_piece/d photo/i
weather: station/l observation/e forecast/e sensor/i storm/e region/l alert/e
auction: lot/i bidder/p bid/e auctioneer/p seller/p sale/e valuation/e
law: lawyer/p case/d court/l hearing/e verdict/e judge/p evidence/i plaintiff/p filing/d
transit: bus/v line/k stop/l trip/e fare/k conductor/p timetable/d train/v platform/l metro_card/i
garage: car/v mechanic/p repair/e owner/p spare_part/i estimate/d inspection_visit/e engine/i tyre/i
space: mission/e astronaut/p satellite/v launch/e rocket/v payload/i orbit/k telescope/i
education_online: learner/p instructor/p quiz/e module/k certificate/d forum_post/d lecture/e attempt/e badge/i
winery: vineyard/l wine/i grape/k bottle/i cellar/l tasting/e barrel/i winemaker/p
pharmacy: drug/i pharmacist/p dispensing/e manufacturer/o dosage_form/k stock_count/e recall/e
marina: boat/v berth/l sailor/p mooring/e captain/p regatta/e dock/l
pets: pet/a breed/k grooming/e kennel/l adoption/e pet_owner/p vet_visit/e
bakery: cake/i baker/p oven/i bread_type/k order_line/e flour_delivery/e
wedding: event_planner/p florist/p invitation/d banquet/e bouquet/i photographer/p
city: street/l park/l building/l bench/i streetlight/i waste_pickup/e tree/i bridge/l parking_lot/l
forestry: forest/l ranger/p logging_permit/d fire_event/e trail/l campsite/l
mining: mine/l miner/p excavation/e ore_sample/i drill/i tunnel/l mineral/k
fishing: vessel/v catch/e fish_species/k port/l fisher/p quota/d
elections_poll: survey/d question/d respondent/p answer/e poll/e panel/o
fashion: garment/i designer/p collection/i fabric/k model/p runway_show/e size/k
dentistry: dentist/p tooth/i cleaning/e dental_plan/k x_ray/d
theatre: play/i performer/p rehearsal/e seat/i performance/e costume/i
startup: investor/p funding_round/e founder/p company/o pitch/e valuation_report/d
social: profile/p post/d like/e follower/p group/o friendship/e photo_album/i hashtag/k
crm: lead/p opportunity/e contact/p account_manager/p meeting/e quote/d region_office/l sales_target/d
"""

# What people say for a word, in both numbers where the plural is regular.
SYNONYMS = """
customer: client shopper buyer; client: customer; product: item article good; order: purchase; supplier: vendor
 provider;
vendor: supplier; category: type group kind; employee: worker staffer colleague; worker: employee; store: shop
 outlet; shop: store;
doctor: physician; patient: case; student: pupil learner; teacher: instructor tutor; course: class; movie: film;
 film: movie;
book: title; author: writer; member: user; user: account person; player: athlete; team: club squad; match: game;
 car: vehicle;
vehicle: car; flight: plane; passenger: traveller; airport: airfield; ticket: pass; booking: reservation;
 reservation: booking;
room: chamber; guest: visitor; visitor: guest; hotel: inn; dish: meal plate; ingredient: component; chef: cook;
 bill: check;
invoice: bill; payment: transaction; transaction: payment; account: record; branch: office; warehouse: depot
 storehouse;
shipment: delivery consignment; delivery: shipment; driver: chauffeur; truck: lorry; parcel: package; task: job;
 job: task;
project: initiative; issue: problem ticket; bug: defect; defect: fault; comment: remark note; artist: musician
 performer;
album: record; track: song; song: track; concert: show gig; actor: performer; property: estate; tenant: renter;
 landlord: owner;
apartment: flat; machine: device; factory: plant; part: component; donor: giver; volunteer: helper; trainer: coach;
 coach: trainer;
athlete: sportsperson; lawyer: attorney; case: file; bus: coach; stop: station; station: stop; boat: ship; vessel:
 ship boat;
pet: animal; meeting: appointment; appointment: meeting; event: happening; company: firm business; firm: company;
 agency: bureau;
citizen: resident; inspection: check; complaint: grievance; exam: test; grade: mark; subject: topic; department:
 division unit;
price: cost; cost: price; amount: sum value; quantity: number amount; salary: pay wage; status: state;
country: nation; city: town; town: city; weight: mass; score: points; rating: score; email: mail; phone: telephone;
total: sum; discount: reduction; stock: inventory; balance: amount; duration: length; capacity: size; age: years;
 revenue: income
turnover; budget: funds; region: area; area: region; manager: boss head; supervisor: boss; experiment: trial;
 sample: specimen;
instrument: device; researcher: scientist; policy: plan; claim: request; premium: fee; fee: charge; charge: fee;
 subscriber: user;
plan: package; call: conversation; farmer: grower; field: plot; crop: plant; harvest: yield; survey: questionnaire;
question: item; answer: reply; post: entry; photo: picture; picture: photo; review: opinion; discount_code: coupon;
 brand: label;
model: version; color: colour; colour: color; size: dimension; lesson: class; loan: borrowing; fine: penalty; sale:
 deal;
offer: bid; bid: offer; repair: fix; mechanic: technician; technician: engineer; engineer: technician; building:
 house;
street: road; park: garden; tree: plant; species: kind; keeper: caretaker; enclosure: cage; donation: gift; grant:
 fund;
"""

FIRST = """Anna Ben Carla David Elena Farid Grace Hana Ivan Julia Karim Lena Marco Nadia Omar Paula Quentin Rosa Samir Tara
Umar Vera Will Xenia Yusuf Zoe Liam Olivia Noah Emma Lucas Mia Ethan Sofia Mason Isla Logan Aria Jacob Chloe
Daniel Emily Henry Nora Oscar Alice Hugo Ines Mateo Clara Pedro Lucia Diego Marta Jonas Greta Felix Frida Otto
Sven Astrid Bjorn Ingrid Lars Pavel Olga Dmitri Irina Jan Eva Petr Hanna Kenji Yuki Haruto Sakura Wei Ming Li
Jun Arjun Priya Ravi Anita Deepak Kavya Ali Fatima Hassan Leila Amina Kofi Ama Kwame Zanele Thabo Minh Lan Huy
Mai Nam Linh Tuan Hoa Dung Trang Phuong Khanh Thao Duc Son Bao Peter Mary John Susan Robert Linda Michael Karen
James Nancy Thomas Betty Steven Helen Andrew Sandra Joshua Donna Kevin Carol Brian Ruth George Sharon Edward
Michelle Ronald Laura Timothy Sarah Jason Kim Jeffrey Amy Ryan Angela""".split()

LAST = """Smith Jones Brown Taylor Wilson Davies Evans Walker Roberts Green Hall Wood Harris Clarke Cooper Ward Turner
Hill Moore Baker Carter Fisher Mason Hunter Foster Bell Reed Gray Cook Parker Morgan Murphy Kelly Novak Kowalski
Muller Schmidt Weber Wagner Becker Hoffmann Rossi Russo Ferrari Bianchi Romano Garcia Lopez Perez Sanchez Torres
Silva Santos Costa Pereira Dubois Moreau Laurent Petit Jansen Visser Bakker Larsen Hansen Nielsen Berg Lindgren
Ivanov Petrov Sokolov Tanaka Suzuki Sato Ito Chen Wang Zhang Liu Kim Park Lee Choi Patel Singh Kumar Sharma Khan
Ahmed Hussein Okafor Mensah Diallo Mbeki Nguyen Tran Le Pham Hoang Phan Vu Vo Dang Bui Do Ho Ngo Duong Ly Adams
Allen Bennett Brooks Coleman Dixon Ellis Ford Gibson Hayes Irwin Jensen Knight Lambert Marsh Norris Osborne
Pratt Quinn Rhodes Shaw Thorne Underwood Vance Wells York Zimmer""".split()

VI_NAMES = """An Bình Chi Dũng Giang Hà Hải Hạnh Hiếu Hoa Hùng Hương Khôi Lan Linh Long Mai Minh Nam Nga Ngọc Nhung Oanh Phúc
Phương Quân Quang Sơn Tâm Thảo Thắng Thu Thủy Trang Trung Tú Tuấn Tùng Vân Việt Vy Yến Đạt Đức Ánh Bảo Cường
Diễm Duy Hằng Hoàng Huy Kiên Loan My Nghĩa Nhi Phong Quỳnh Thanh Thịnh Trí Uyên Xuân""".split()

CITIES = """London Paris Berlin Madrid Rome Vienna Prague Warsaw Oslo Lisbon Dublin Athens Zurich Geneva Munich Hamburg
Milan Turin Porto Seville Valencia Lyon Nantes Brussels Antwerp Rotterdam Utrecht Copenhagen Aarhus Stockholm
Malmo Helsinki Turku Riga Vilnius Tallinn Budapest Bucharest Sofia Zagreb Ljubljana Belgrade Kyiv Istanbul
Ankara Cairo Tunis Lagos Accra Nairobi Dakar Tokyo Osaka Kyoto Seoul Busan Beijing Shanghai Hanoi Saigon Hue
Danang Bangkok Manila Jakarta Delhi Mumbai Chennai Dhaka Karachi Lahore Tehran Dubai Doha Boston Chicago Denver
Dallas Austin Houston Seattle Portland Phoenix Atlanta Miami Toronto Ottawa Montreal Vancouver Mexico Bogota
Lima Quito Santiago Brasilia Recife Sydney Perth Brisbane Auckland Leeds Bristol York Oxford Cambridge Glasgow
Cardiff Belfast Springfield Riverton Lakeside Hillview Ashford Northgate Westport Easton Milton""".split()

COUNTRIES = """France Germany Spain Italy Portugal Austria Poland Norway Sweden Finland Denmark Ireland Greece Hungary Romania
Croatia Turkey Egypt Tunisia Nigeria Ghana Kenya Japan China India Vietnam Thailand Indonesia Philippines
Pakistan Iran Canada Mexico Brazil Peru Chile Argentina Colombia Australia Iceland Belgium Netherlands
Switzerland USA UK""".split()

ADJECTIVES = """red blue green black white golden silver classic modern deluxe basic premium smart light heavy fast silent
organic fresh sweet wild northern southern eastern western royal grand little old new central global rapid
bright dark soft solid clear cold warm double single mini super ultra royal urban rural vintage""".split()

NOUNS = """lamp chair table mug bottle jacket shoe watch phone tablet camera speaker keyboard mouse desk sofa pillow
blanket knife spoon pan kettle toaster bike helmet tent rope ladder hammer drill brush soap candle mirror clock
vase basket box bag wallet belt scarf hat glove sock shirt dress skirt coat boot sandal ring necklace pencil
notebook marker folder stapler paper envelope battery cable charger adapter router printer scanner monitor apple
bread cheese coffee tea honey rice pasta soup salad cookie cake juice river mountain garden bridge tower harbor
island valley forest meadow ocean desert castle temple museum station market square eagle tiger lion wolf bear
falcon dragon phoenix rose lily maple cedar pine oak moon star sun comet galaxy storm thunder shadow dream story
journey secret night morning winter summer spring autumn fire stone iron glass copper""".split()

LOOKUPS: dict[str, list[str]] = {
    "status": "active inactive pending closed open cancelled completed approved rejected archived draft new paid unpaid overdue "
    "shipped delivered returned scheduled done failed running paused expired blocked confirmed waiting resolved suspended".split(),
    "priority": "low medium high urgent critical normal minor major".split(),
    "level": "beginner intermediate advanced expert junior senior lead bronze silver gold platinum basic premium standard".split(),
    "type": "internal external online offline public private domestic foreign regular special retail wholesale manual automatic "
    "indoor outdoor digital paper single double family business personal commercial residential temporary permanent".split(),
    "color": "red blue green yellow black white grey orange purple brown pink silver".split(),
    "size": "XS S M L XL XXL small medium large".split(),
    "method": "card cash transfer cheque voucher paypal phone email web mail courier pickup".split(),
    "gender": "female male other F M X".split(),
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "currency": "EUR USD GBP VND JPY CHF SEK".split(),
    "country": COUNTRIES,
    "season": "spring summer autumn winter".split(),
    "unit": "kg g l ml m cm piece box pack hour".split(),
    "language": "English French German Spanish Vietnamese Chinese Japanese Arabic Italian Polish".split(),
    "reason": "damaged late wrong unwanted duplicate defective lost weather illness maintenance upgrade".split(),
    "grade": "A B C D E F A+ B+ pass fail".split(),
    "region": "north south east west central coast inland highland delta metro".split(),
    "channel": "web shop phone email partner app social radio newsletter".split(),
    "material": "wood steel plastic glass cotton leather paper aluminium copper wool ceramic stone rubber".split(),
    "shape": "round square oval flat long short".split(),
    "blood": "A B AB O".split(),
}

# column: types; what its values are (a generator of `values.py`, or a key of LOOKUPS after @)
NUMBERS = """
price cost unit_price amount total total_amount fee salary wage budget revenue balance discount tax deposit premium
 income expense
rent fare bonus target_amount list_price net_amount gross_amount commission profit debt refund_amount shipping_cost
 hourly_rate|money
quantity qty stock units seats capacity rooms pages floors copies members_count visits views likes points goals
 attendance wins losses
attempts items_count headcount beds employees downloads votes tickets_sold credits stops passengers stock_level
 reorder_level|count
age years duration minutes hours days_late duration_min length_min year_built experience_years lead_time_days rank
 position_no
weight height length width depth distance speed temperature area volume depth_m weight_kg height_cm distance_km
 area_m2 power_kw
mileage humidity pressure ph rainfall voltage altitude|measure
rating score grade_points percent rate discount_pct stars satisfaction completion_pct accuracy efficiency gpa
 quality_index|rating
"""
DATES = """created_at updated_at ordered_at paid_at shipped_at started_at ended_at closed_at opened_at joined_at
registered_at submitted_at published_at booked_at delivered_at recorded_at logged_at last_login resolved_at
checked_in_at checked_out_at sent_at returned_at date order_date start_date end_date due_date birth_date
hire_date hired_on release_date signup_date expiry_date payment_date visit_date event_date issued_on founded_on
due_on valid_from valid_until inspection_date purchase_date departure arrival delivery_date last_service
join_date date_of_birth dob"""
FLAGS = """active is_active available in_stock paid is_paid verified approved deleted archived enabled is_default is_public
member vip urgent completed is_member insured refundable published featured certified is_open online returned
resolved has_parking confirmed locked taxable required recurring billable""".split()
TEXTS = {
    "p": "name|full full_name|full first_name|first last_name|last email|email phone|phone city|city country|@country "
    "gender|@gender status|@status level|@level address|street nationality|@country language|@language job_title|job "
    "username|code nickname|invented title|job specialty|invented region|@region blood_type|@blood",
    "o": "name|org city|city country|@country website|web email|email phone|phone industry|invented type|@type status|@status "
    "address|street contact_name|full region|@region rating_class|@grade short_name|invented motto|phrase",
    "l": "name|place city|city address|street country|@country type|@type status|@status code|code region|@region "
    "zone|code district|invented label|phrase climate|@season surface|@material",
    "i": "name|thing title|phrase code|code sku|code color|@color size|@size status|@status type|@type material|@material "
    "model|invented brand|invented unit|@unit description|phrase serial_no|code language|@language condition|@level "
    "barcode|code variety|invented",
    "e": "status|@status type|@type method|@method reason|@reason notes|phrase channel|@channel reference|code "
    "priority|@priority outcome|@status currency|@currency title|phrase location|city weekday|@weekday season|@season "
    "result|@grade code|code shift|@type payment_method|@method",
    "d": "title|phrase status|@status number|code type|@type language|@language summary|phrase reference_no|code "
    "category|@type version|code priority|@priority currency|@currency approved_by|full doc_code|code",
    "k": "name|label description|phrase code|code type|@type level|@level label|label color|@color short_name|code family|invented",
    "v": "name|invented model|invented plate|code registration_no|code type|@type color|@color status|@status manufacturer|org "
    "fuel|@material country|@country",
    "a": "name|invented species|label breed|invented gender|@gender color|@color status|@status origin|@country size|@size",
}
COMMENTS = """as agreed with the customer; net of tax; filled by the nightly import; kept for history; in the local currency;
set by the system; free text; see the handbook; may be empty; one per day; legacy field; checked by hand; in metric
 units;
last known value; counts only open ones; internal use""".replace("\n", " ").split(";")

ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pl qu r s sh sk st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ou a e i o".split()
CODAS = ["", "", "", "n", "r", "l", "s", "m", "t", "k", "x", "nd", "rn", "th", "ss"]


def invented(rng: random.Random, most: int = 3) -> str:
    """A word nobody has seen: two or three syllables, lower case."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.choice([2] * 3 + [most]))
    )


@cache
def entities() -> dict[str, list[tuple[str, str]]]:
    """Domain -> [(entity, sort)]."""
    found = re.findall(r"(\w+):((?:\s+\w+/\w)+)", DOMAINS)
    return {domain: [(word, sort) for word, sort in re.findall(r"(\w+)/(\w)", body)] for domain, body in found}


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Word -> what people say instead, singular and plural."""
    out: dict[str, tuple[str, ...]] = {}
    for entry in " ".join(SYNONYMS.split()).split(";"):
        if ":" in entry:
            word, others = entry.split(":")
            out[word.strip()] = tuple(others.split())
            out[plural(word.strip())] = tuple(plural(other) for other in others.split())
    return out


def plural(word: str) -> str:
    """English plural, regular enough for table names."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeou":
        return word[:-1] + "ies"
    return word + "s"


@cache
def dictionary() -> list[str]:
    """A few thousand English words, from the documentation that every Python carries."""
    from pydoc_data.topics import topics

    found = set(re.findall(r"(?<![\w.'-])[a-z]{4,11}(?![\w'.(-])", " ".join(topics.values())))
    return sorted(found)
